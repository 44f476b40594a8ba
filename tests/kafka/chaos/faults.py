"""The faults: what happens to the fleet, the brokers and the topics, one every few seconds, by a seed."""

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tagbus.stream.config import Settings
from tests.kafka.chaos.check import Watch
from tests.kafka.chaos.fleet import Fleet, Member
from tests.kafka.chaos.load import Load
from tests.kafka.chaos.topics import RECREATED, Topics
from tests.kafka.cluster import ApacheCluster
from tests.support import wait_until

SIZE = 3
MOST = 5
# Seconds between two faults.
PAUSE = (3.0, 7.0)
# How often partitions are added at most.
GROWTHS = 3
# How long a broker may run on a full disk: as it writes next, it ends.
FULL_SECONDS = 60.0
# How long what is away may take to come back.
REST_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class _Pause:
    """A member that is stopped until a time (of time.monotonic()), or until another is ready in its place."""

    member: Member
    until: float = 0.0
    successor: Member | None = None

    def over(self) -> bool:
        waits = self.successor is not None and self.successor.process.poll() is None and not self.successor.ready()
        return time.monotonic() >= self.until and not waits


@dataclass(frozen=True, slots=True)
class Scene:
    """What the faults are done to."""

    given: Settings
    fleet: Fleet
    cluster: ApacheCluster
    topics: Topics
    load: Load
    watch: Watch


class Faults:
    """Chooses and does. `lines` tells what was done and when, in seconds since the start; `done` counts what was done
    to topics and disks."""

    def __init__(self, scene: Scene, seed: int, fenced_seconds: float) -> None:
        """`fenced_seconds`: how long a pause is at least, so that the group and the transaction coordinator give the
        paused one up."""
        self.lines: list[str] = []
        self.done: Counter[str] = Counter()
        self._scene = scene
        self._fleet = scene.fleet
        self._cluster = scene.cluster
        self._random = random.Random(seed)  # noqa: S311 - spreads faults, guards nothing
        self._fenced_seconds = fenced_seconds
        self._start = time.monotonic()
        self._next = self._start + PAUSE[0]
        self._pauses: list[_Pause] = []
        # What takes its time is done by another thread, one at a time: two brokers of three cannot be away, and what
        # goes with a topic is known only while all of them are there.
        self._mender = ThreadPoolExecutor(1)
        self._mend: Future[None] | None = None
        # Topics that are to be created again: each once before any comes a second time.
        self._words: list[str] = []
        # The first ones are fixed, so that a short run has something of each.
        self._first: list[Callable[[], str]] = [
            self._takeover,
            self._recreated,
            self._kill,
            self._grown,
            self._freeze,
            self._disk_full,
            self._join,
        ]

    def turn(self) -> None:
        """One iteration: tend the fleet, end a pause that is over, and inject the next fault when its time has come."""
        for line in self._fleet.tend():
            self._tell(line)
        self._thaw([pause for pause in self._pauses if pause.over()])
        if time.monotonic() < self._next:
            return
        busy = self._mending()
        if self._first and not (busy and self._first[0] in self._mended()):
            act = self._first.pop(0)
        else:
            act = self._choose(busy=busy)
        self._tell(act())
        self._next = time.monotonic() + self._random.uniform(*PAUSE)

    def rest(self) -> None:
        """Let everything recover: no more faults, no process paused, all brokers and topics back."""
        self._thaw(list(self._pauses))
        if self._mend is not None:
            self._mend.result(REST_SECONDS)

    def _mended(self) -> dict[Callable[[], str], float]:
        """Faults that are put right by the other thread, and how likely each is."""
        return {
            self._broker_killed: 1,
            self._broker_restarted: 1,
            self._disk_full: 1 if self._cluster.disk is not None else 0,
            self._recreated: 2,
            self._grown: 1 if self.done["grown"] < GROWTHS else 0,
        }

    def _choose(self, *, busy: bool) -> Callable[[], str]:
        calm = not self._pauses
        crew = len(self._fleet.awake())
        weights: dict[Callable[[], str], float] = {
            self._kill: 10,
            self._terminate: 5,
            self._join: 2 if crew < MOST else 0,
            self._leave: 4 if crew > SIZE else 0,
            self._freeze: 3 if calm else 0,
            self._takeover: 3 if calm else 0,
            **({} if busy else self._mended()),
        }
        (act,) = self._random.choices(list(weights), list(weights.values()))
        return act

    def _kill(self) -> str:
        victim = self._one()
        victim.leaving = True
        victim.kill()
        return f"SIGKILL {victim}, in its place {self._successor(victim)}"

    def _terminate(self) -> str:
        victim = self._one()
        victim.leaving = True
        victim.terminate()
        return f"SIGTERM {victim}, in its place {self._fleet.start(self._fleet.name())}"

    def _join(self) -> str:
        return f"{self._fleet.start(self._fleet.name())} joins"

    def _leave(self) -> str:
        leaver = self._one()
        leaver.leaving = True
        leaver.terminate()
        return f"{leaver} leaves"

    def _freeze(self) -> str:
        """It wakes up when its partitions have gone to others, and its transaction is aborted."""
        victim = self._one()
        victim.freeze()
        seconds = self._fenced_seconds * self._random.uniform(1.1, 1.5)
        self._pauses.append(_Pause(victim, time.monotonic() + seconds))
        return f"SIGSTOP {victim} for {seconds:.1f} s"

    def _takeover(self) -> str:
        """An orchestrator gives up a worker that does not answer, and starts another of its name: then it wakes up."""
        victim = self._one()
        victim.freeze()
        victim.leaving = True
        successor = self._fleet.start(victim.instance)
        self._pauses.append(_Pause(victim, successor=successor))
        return f"SIGSTOP {victim}, in its place {successor}"

    def _thaw(self, pauses: list[_Pause]) -> None:
        for pause in pauses:
            self._pauses.remove(pause)
            pause.member.thaw()
            self._tell(f"SIGCONT {pause.member}")

    def _broker_killed(self) -> str:
        return self._restart("SIGKILL", kill=lambda node: node.kill())

    def _broker_restarted(self) -> str:
        return self._restart("SIGTERM", kill=lambda node: node.stop())

    def _restart(self, how: str, kill: Callable[..., None]) -> str:
        index = self._random.randrange(len(self._cluster.nodes))
        node = self._cluster.nodes[index]

        def away() -> None:
            kill(node)
            node.restart()

        self._mend = self._mender.submit(away)
        return f"{how} broker {index + 1}, and started again"

    def _disk_full(self) -> str:
        """The broker exits on the full disk, and comes back when there is space."""
        disk, node = self._cluster.disk, self._cluster.nodes[-1]
        assert disk is not None

        def away() -> None:
            disk.fill(node)
            wait_until(lambda: not node.known(), FULL_SECONDS, "the end of a broker on a full disk")
            disk.free()
            node.restart()

        self.done["disks"] += 1
        self._mend = self._mender.submit(away)
        return f"disk of broker {len(self._cluster.nodes)} full ({disk.means}), and started again with space"

    def _grown(self) -> str:
        topics = self._scene.topics
        self.done["grown"] += 1
        self._mend = self._mender.submit(topics.grow, self._scene.given, self._scene.load)
        return f"content gets partition {topics.partitions}, and then its versions"

    def _recreated(self) -> str:
        self._words = self._words or self._random.sample(RECREATED, len(RECREATED))
        word = self._words.pop()
        scene = self._scene
        self.done["recreated"] += 1
        self._mend = self._mender.submit(scene.topics.recreate, word, scene.given, scene.load, scene.watch)
        return f"{word} deleted, and created again"

    def _mending(self) -> bool:
        """Whether a broker or a topic is away. Raises what kept it from coming back."""
        if self._mend is None or not self._mend.done():
            return self._mend is not None
        self._mend.result()
        return False

    def _one(self) -> Member:
        """Anyone but those who have just taken another's place: else that one would never find out."""
        fresh = {pause.successor for pause in self._pauses}
        awake = self._fleet.awake()
        return self._random.choice([member for member in awake if member not in fresh] or awake)

    def _successor(self, victim: Member) -> Member:
        """Under the same name it fences an open transaction immediately; under another that waits for its timeout."""
        return self._fleet.start(self._random.choice([victim.instance, self._fleet.name()]))

    def _tell(self, line: str) -> None:
        self.lines.append(f"{time.monotonic() - self._start:6.1f} s  {line}")
        print(self.lines[-1], flush=True)
