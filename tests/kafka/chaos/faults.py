"""The faults: what happens to the fleet and to the brokers, one every few seconds, by a seed."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tests.kafka.chaos.fleet import Fleet, Member
from tests.kafka.cluster import ApacheCluster

SIZE = 3
MOST = 5
# Seconds between two faults.
PAUSE = (3.0, 7.0)


@dataclass(frozen=True, slots=True)
class _Pause:
    """A member that is stopped until a time (of time.monotonic()), or until another is ready in its place."""

    member: Member
    until: float = 0.0
    successor: Member | None = None

    def over(self) -> bool:
        waits = self.successor is not None and self.successor.process.poll() is None and not self.successor.ready()
        return time.monotonic() >= self.until and not waits


class Faults:
    """Chooses and does. `lines` tells what was done and when, in seconds since the start."""

    def __init__(self, fleet: Fleet, cluster: ApacheCluster, seed: int, fenced_seconds: float) -> None:
        """`fenced_seconds`: how long a pause is at least, so that the group and the transaction coordinator give the
        paused one up."""
        self.lines: list[str] = []
        self._fleet = fleet
        self._cluster = cluster
        self._random = random.Random(seed)  # noqa: S311 - spreads faults, guards nothing
        self._fenced_seconds = fenced_seconds
        self._start = time.monotonic()
        self._next = self._start + PAUSE[0]
        self._pauses: list[_Pause] = []
        self._mender = ThreadPoolExecutor(1)
        self._broker: Future[None] | None = None
        # The first ones are fixed, so that a short run has something of each.
        self._first: list[Callable[[], str]] = [
            self._takeover,
            self._kill,
            self._broker_killed,
            self._freeze,
            self._join,
        ]

    def turn(self) -> None:
        """Once round: tend the fleet, end a pause that is over, and do the next fault when it is due."""
        for line in self._fleet.tend():
            self._tell(line)
        self._thaw([pause for pause in self._pauses if pause.over()])
        if time.monotonic() < self._next:
            return
        self._tell((self._first.pop(0) if self._first else self._choose())())
        self._next = time.monotonic() + self._random.uniform(*PAUSE)

    def rest(self) -> None:
        """Let everything recover: no more faults, nobody paused, all brokers up."""
        self._thaw(list(self._pauses))
        if self._broker is not None:
            self._broker.result(90)

    def _choose(self) -> Callable[[], str]:
        calm = not self._pauses
        crew = len(self._fleet.awake())
        weights = {
            self._kill: 10,
            self._terminate: 5,
            self._join: 2 if crew < MOST else 0,
            self._leave: 4 if crew > SIZE else 0,
            self._freeze: 3 if calm else 0,
            self._takeover: 3 if calm else 0,
            self._broker_killed: 0 if self._mending() else 1,
            self._broker_restarted: 0 if self._mending() else 1,
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

        self._broker = self._mender.submit(away)
        return f"{how} broker {index + 1}, and started again"

    def _mending(self) -> bool:
        """Whether a broker is away. Raises what kept it from coming back."""
        if self._broker is None or not self._broker.done():
            return self._broker is not None
        self._broker.result()
        return False

    def _one(self) -> Member:
        """Anyone but those who have just taken another's place: else that one would never find out."""
        fresh = {pause.successor for pause in self._pauses}
        awake = self._fleet.awake()
        return self._random.choice([member for member in awake if member not in fresh] or awake)

    def _successor(self, victim: Member) -> Member:
        """Under the same name it fences what was left open at once; under another that waits for its timeout."""
        return self._fleet.start(self._random.choice([victim.instance, self._fleet.name()]))

    def _tell(self, line: str) -> None:
        self.lines.append(f"{time.monotonic() - self._start:6.1f} s  {line}")
        print(self.lines[-1], flush=True)
