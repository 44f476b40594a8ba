"""The fleet: workers as processes, tended as an orchestrator would, and what their logs and exit codes tell."""

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, MemberAssignment

from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Fatal, Fenced, UserError
from tests.bus.harness import environment

MEMBER = Path(__file__).parent / "member.py"
REBALANCE = re.compile(r"^(\S+ \S+) \w+ \S+ rebalance: ", re.MULTILINE)
ABORTED = re.compile(r"^aborted (\d+)$", re.MULTILINE)
# What a worker says last whose transaction the coordinator does not know, or whose sequence numbers a broker does not.
GIVEN_UP = re.compile(r"Fatal: Kafka client failed \((INVALID_TXN_STATE|OUT_OF_ORDER_SEQUENCE_NUMBER)\)")
# What one says last that starts while a topic is away, or has too few partitions.
TOPICS = re.compile(r"(UserError|TopicMissing): topic \S+ (does not exist|has \d+ partitions, expected at least)")
# Every member logs its part of a rebalance: what is logged within so many seconds is one.
ONE_REBALANCE_SECONDS = 1.0
# Of those that ended unexpectedly: how many are told, and how much of their logs, in characters.
MOST_TOLD = 5
TAIL = 1500
# Of one that stands still: how much of its log is told, in characters, and for how long it may write it.
DUMPED = 12_000
DUMP_SECONDS = 2.0
DESCRIBE_SECONDS = 30.0


class Member:
    """One process of one instance."""

    def __init__(self, given: Settings, instance: str, log: Path) -> None:
        self.instance = instance
        self.log = log
        # It is being replaced or removed: it is not restarted when it ends.
        self.leaving = False
        self.frozen = False
        self.killed = False
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(MEMBER)], env=environment(given, instance=instance), stdout=out, stderr=out
            )

    def __str__(self) -> str:
        return f"{self.instance}({self.process.pid})"

    def ready(self) -> bool:
        return "ready\n" in self.text()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        # A process that had already exited was not killed.
        self.killed = self.process.wait() == -signal.SIGKILL

    def terminate(self) -> None:
        self.process.terminate()

    def freeze(self) -> None:
        """Freeze it, as a lost network or a swapping machine would: it neither answers nor notices."""
        self.frozen = True
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.process.send_signal(signal.SIGCONT)

    def ends(self) -> set[int]:
        """The exit codes it may end with: stopped, killed, or fenced by its successor. A stop before its handlers are
        installed ends it by the signal itself.

        A transaction that its coordinator does not know cannot be aborted: EndTxn gets INVALID_TXN_STATE, which is
        fatal to librdkafka (4849). So it is with one that was paused until the coordinator gave the transaction up, and
        with one whose coordinator went away before it had heard of it. A broker that ends on a full disk may come back
        without the last records of a producer, which librdkafka reports as fatal too: a sequence desynchronization.

        Where a broker goes away librdkafka may lose the group's coordinator and wait for it for ever (librdkafka 5511):
        the worker ends as one whose dependency is down.

        A process that starts while a topic is missing or has too few partitions reports it, and is restarted.
        """
        text = self.text()
        given_up = {Fatal.exit_code} if GIVEN_UP.search(text) else set()
        refused = {UserError.exit_code} if TOPICS.search(text) else set()
        return {0, -signal.SIGKILL, -signal.SIGTERM, Fenced.exit_code, DependencyDown.exit_code} | given_up | refused


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the fleet went through, by its logs and exit codes. `codes`: how often a process ended with which."""

    kills: int
    rebalances: int
    fenced: int
    aborts: int
    codes: dict[int, int]


class Fleet:
    """The members that run, and those that ran."""

    def __init__(self, given: Settings, folder: Path) -> None:
        self.members: list[Member] = []
        self._ended: list[Member] = []
        self._given = given
        self._folder = folder
        self._names = 0

    def name(self) -> str:
        """A new instance's name."""
        self._names += 1
        return f"w{self._names}"

    def start(self, instance: str) -> Member:
        log = self._folder / f"{len(self.members) + len(self._ended):03d}-{instance}.log"
        member = Member(self._given, instance, log)
        self.members.append(member)
        return member

    def awake(self) -> list[Member]:
        """Those that work and stay."""
        return [member for member in self.members if not member.frozen and not member.leaving]

    def tend(self) -> list[str]:
        """Start again what has ended and was to stay. Returns what happened, for people."""
        told = []
        for member in [member for member in self.members if member.process.poll() is not None]:
            self.members.remove(member)
            self._ended.append(member)
            told.append(f"{member} ended with {member.process.returncode}")
            if not member.leaving:
                told.append(f"started again as {self.start(member.instance)}")
        return told

    def stop(self, seconds: float = 60) -> None:
        """SIGTERM to all, and wait. AssertionError with the end of a log for one that does not end."""
        for member in self.members:
            member.leaving = True
            member.terminate()
        end = time.monotonic() + seconds
        for member in self.members:
            try:
                member.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{member} does not stop:\n{member.text()[-3000:]}") from None
        self.tend()

    def dump(self) -> list[str]:
        """The group of a fleet that stands still as its coordinator has it, and what its members are at: the ends of
        their logs, with the stacks of all threads."""
        for member in self.members:
            member.process.send_signal(signal.SIGUSR1)
        # The handler writes at once, from C; a member that is being started has none yet and is ended by the signal.
        time.sleep(DUMP_SECONDS)
        return [self._group(), *(f"{member} stands still:\n{member.text()[-DUMPED:]}" for member in self.members)]

    def _group(self) -> str:
        kafka = self._given.kafka
        asked = AdminClient({"bootstrap.servers": kafka.brokers}).describe_consumer_groups([kafka.group])
        try:
            group = asked[kafka.group].result(DESCRIBE_SECONDS)
        except (KafkaException, TimeoutError) as error:
            return f"no coordinator describes group {kafka.group} within {DESCRIBE_SECONDS:.0f} s: {error!r}"
        lines = [f"the coordinator has group {kafka.group}, {group.state}:"]
        for one in group.members:
            to_hold = "" if one.target_assignment is None else f", is to hold {_numbers(one.target_assignment)}"
            lines.append(f"{one.client_id} {one.member_id} holds {_numbers(one.assignment)}{to_hold}")
        return "\n".join(lines)

    def close(self) -> None:
        """Kill what is left."""
        for member in self.members:
            if member.process.poll() is None:
                member.process.kill()
                member.process.wait()

    def evidence(self) -> Evidence:
        every = [*self._ended, *self.members]
        codes = Counter(member.process.returncode for member in self._ended)
        texts = [member.text() for member in every]
        return Evidence(
            kills=sum(member.killed for member in every),
            rebalances=_moments([_time(stamp) for text in texts for stamp in REBALANCE.findall(text)]),
            fenced=codes[Fenced.exit_code],
            aborts=sum(max(map(int, ABORTED.findall(text)), default=0) for text in texts),
            codes=dict(codes),
        )

    def surprises(self) -> list[str]:
        """Those that ended otherwise than they had to, with the ends of their logs."""
        odd = [member for member in self._ended if member.process.returncode not in member.ends()]
        return [f"{member} with {member.process.returncode}:\n{member.text()[-TAIL:]}" for member in odd[:MOST_TOLD]]


def _numbers(assigned: MemberAssignment) -> list[int]:
    return sorted(one.partition for one in assigned.topic_partitions)


def _time(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def _moments(times: list[float]) -> int:
    count, last = 0, float("-inf")
    for time_ in sorted(times):
        count += time_ - last > ONE_REBALANCE_SECONDS
        last = time_
    return count
