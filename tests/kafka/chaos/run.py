"""One run: load and faults until enough has happened, then rest, then the comparison."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.bus.harness import settings
from tests.kafka.chaos.check import Outcome, Watch, compare
from tests.kafka.chaos.faults import SIZE, Faults, Scene
from tests.kafka.chaos.fleet import Evidence, Fleet
from tests.kafka.chaos.load import Load
from tests.kafka.chaos.topics import PARTITIONS, Topics
from tests.kafka.cluster import ApacheCluster
from tests.support import wait_until

# A member that dies while the group forms is waited for as long as this, and the next fault comes after 3 to 7 s: with
# 6 s here and 2 to 6 s between faults every member died young and the classic protocol stood still for 38 s.
SESSION_SECONDS = 4.0
TRANSACTION_SECONDS = 8.0
# What is allowed above the time that Kafka needs to give up a member and its transaction.
SLACK_SECONDS = 10.0
STALL_SECONDS = SESSION_SECONDS + TRANSACTION_SECONDS + SLACK_SECONDS
RECOVERY_SECONDS = 120.0
# Of each broker's log, where the fleet stands still.
LOG_LINES = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """Minimum duration and load, and the faults that must have happened for the run to count. It continues for at most
    `bound` seconds until they have."""

    seconds: float
    contents: int
    bound: float
    seed: int
    kills: int = 0
    rebalances: int = 0
    fenced: int = 0
    aborts: int = 0
    grown: int = 0
    recreated: int = 0
    disks: int = 0
    doubled: int = 0
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    protocol: Literal["classic", "consumer"] = "classic"


@dataclass(frozen=True, slots=True)
class Report:
    """What a run gave. `done`: how often partitions were added, topics recreated, disks full. `missing` names what did
    not happen often enough; empty where the run counts."""

    outcome: Outcome
    evidence: Evidence
    done: Mapping[str, int]
    longest_stall_seconds: float
    stall_ended_at: float
    seconds: float
    recovery_seconds: float
    missing: tuple[str, ...]
    surprises: tuple[str, ...]

    def faults(self) -> list[str]:
        """What is wrong with the outcome at exactly once; empty where nothing is."""
        wrong = ("lost", "invented", "duplicated", "misplaced", "unordered", "changed")
        found = [f"{name}: {count}" for name, count in asdict(self.outcome).items() if name in wrong and count]
        return [*found, *(self.outcome.examples if found else ())]

    def stalls(self) -> list[str]:
        """Whether it stood still for too long; empty where it did not."""
        if self.longest_stall_seconds < STALL_SECONDS:
            return []
        return [
            f"stalled for {self.longest_stall_seconds:.1f} s, until second {self.stall_ended_at:.0f}; "
            f"at most {STALL_SECONDS:g} s are allowed"
        ]


def chaos(cluster: ApacheCluster, plan: Plan, folder: Path) -> Report:
    """Run it. `folder` takes the logs of the workers."""
    topics = Topics(cluster)
    names = topics.names
    given = settings(
        cluster.address,
        names,
        kafka={
            "session_seconds": SESSION_SECONDS,
            "transaction_seconds": TRANSACTION_SECONDS,
            "delivery": plan.delivery,
            "group_protocol": plan.protocol,
            # Records of a recreated `content` are read, and added partitions are found immediately.
            "out_of_range": "earliest",
            "options": {"topic.metadata.refresh.interval.ms": "1000"},
        },
        batch={"contents": 50, "in_flight": 4, "drain_seconds": 5},
    )
    fleet = Fleet(given, folder)
    # A little faster than the plan needs: the last second is cut off.
    load = Load(cluster.address, names["content"], 1.05 * plan.contents / plan.seconds, plan.seed, PARTITIONS)
    watch = Watch(cluster.address, names, load)
    try:
        for _ in range(SIZE):
            fleet.start(fleet.name())
        wait_until(lambda: all(member.ready() for member in fleet.members), 120, "a fleet that is ready")
        start = time.monotonic()
        load.start()
        watch.start()
        scene = Scene(given, fleet, cluster, topics, load, watch)
        faults = Faults(scene, plan.seed, max(SESSION_SECONDS, TRANSACTION_SECONDS))
        missing = _until_enough(plan, fleet, load, watch, faults)
        faults.rest()
        load.stop()
        lasted, rested = time.monotonic() - start, time.monotonic()
        if not _until_out(fleet, load, watch):
            brokers = [f"{node.address}: its log ends\n{node.log_tail(LOG_LINES)}" for node in cluster.nodes]
            for line in [*fleet.dump(), *brokers]:
                print(line, flush=True)
        recovery = time.monotonic() - rested
        fleet.stop()
        watch.stop()
        return Report(
            compare(cluster.address, names, topics.before),
            fleet.evidence(),
            dict(faults.done),
            watch.longest,
            watch.longest_at,
            lasted,
            recovery,
            tuple(missing),
            tuple(fleet.surprises()),
        )
    finally:
        fleet.close()


def _until_enough(plan: Plan, fleet: Fleet, load: Load, watch: Watch, faults: Faults) -> list[str]:
    """Returns what has not happened often enough when the time is over."""
    start, asked, missing = time.monotonic(), 0.0, ["nothing was looked at"]
    while missing:
        faults.turn()
        time.sleep(0.05)
        now = time.monotonic()
        if now - start >= plan.bound:
            break
        if now - start >= plan.seconds and now - asked > 2.0:
            asked = now
            missing = _missing(plan, fleet.evidence(), faults.done, load.confirmed, watch.doubled)
    return missing


def _missing(plan: Plan, evidence: Evidence, done: Mapping[str, int], sent: int, doubled: int) -> list[str]:
    wanted = {
        "contents": (sent, plan.contents),
        "kills": (evidence.kills, plan.kills),
        "rebalances": (evidence.rebalances, plan.rebalances),
        "fenced": (evidence.fenced, plan.fenced),
        "aborts": (evidence.aborts, plan.aborts),
        "partitions added": (done.get("grown", 0), plan.grown),
        "topics recreated": (done.get("recreated", 0), plan.recreated),
        "disks full": (done.get("disks", 0), plan.disks),
        "doubled": (doubled, plan.doubled),
    }
    return [f"{name}: {had} of {least}" for name, (had, least) in wanted.items() if had < least]


def _until_out(fleet: Fleet, load: Load, watch: Watch) -> bool:
    """Tend the fleet until everything is out; what is not by then is found lost by the comparison."""
    end = time.monotonic() + RECOVERY_SECONDS
    while watch.out < load.confirmed and time.monotonic() < end:
        fleet.tend()
        time.sleep(0.05)
    return watch.out >= load.confirmed
