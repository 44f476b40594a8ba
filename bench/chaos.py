"""Exactly-once delivery under faults: workers and brokers go away, topics change, a disk is full.

    python bench/chaos.py [--protocol classic consumer] [--out FOLDER] [--seed N] [--seconds 300] [--contents 100000]

Apache Kafka on this machine, three brokers with replication 3, three workers. Every few seconds a worker gets SIGKILL
or SIGTERM, joins, leaves, or is paused by SIGSTOP until the group and transaction coordinators give it up; a broker is
killed, restarted, or ends on a full disk; `content` gets a partition, and later `content.versions`; `content`, `tagged`
or `content.dlq` is deleted and created again. Afterwards each input must be on `tagged` or `content.dlq` exactly once,
on the right topic, in order per key (read_committed). A deleted topic loses its records: `gone` counts the inputs
whose results were lost this way, by the rule in tests/kafka/chaos/check.py; no other may be missing.

The run continues until enough has happened (20 kills, 10 rebalances, 3 fenced producers, 1 abort, 1 partition, each of
the 3 topics, 1 disk), for at most twice the time. A control run at `at_least_once` must show duplicates; otherwise the
check proves nothing. Exits with code 1 on any fault. The seed determines contents and faults, not their interleaving.
One protocol after the other, each with its own file: chaos.json and chaos-consumer.json.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.kafka.chaos.faults import SIZE
from tests.kafka.chaos.run import STALL_SECONDS, Plan, Report, chaos
from tests.kafka.cluster import ApacheCluster
from tests.kafka.disk import Disk

RESULTS = Path(__file__).parent / "results"
NEEDED = {"kills": 20, "rebalances": 10, "fenced": 3, "aborts": 1, "grown": 1, "recreated": 3, "disks": 1}
FILES = {"classic": "chaos.json", "consumer": "chaos-consumer.json"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--contents", type=int, default=100_000)
    parser.add_argument("--control-seconds", type=float, default=60.0, help="of the at_least_once control run")
    parser.add_argument(
        "--protocol", nargs="+", choices=FILES, default=list(FILES), help="group.protocol, one run after the other"
    )
    return parser.parse_args()


def one(cluster: ApacheCluster, plan: Plan) -> Report:
    """Run once and print unexpected exits."""
    print(f"\n{plan.delivery}, group.protocol={plan.protocol}, seed {plan.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"tagbus-chaos-{plan.delivery}-"))
    report = chaos(cluster, plan, folder)
    for surprise in report.surprises:
        print(f"unexpected exit: {surprise}")
    print(
        f"{report.outcome}\n{report.evidence}\n{report.done}\nlongest stall {report.longest_stall_seconds:.1f} s",
        flush=True,
    )
    if report.faults() or report.stalls() or report.surprises:
        print(f"the workers' logs are in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return report


def summary(report: Report, control: Report, plan: Plan) -> dict[str, object]:
    """The JSON report."""
    outcome, evidence = report.outcome, report.evidence
    return {
        "sent": outcome.sent,
        "tagged": outcome.tagged,
        "dead_lettered": outcome.dead_lettered,
        "lost": outcome.lost,
        "duplicated": outcome.duplicated,
        "kills": evidence.kills,
        "rebalances": evidence.rebalances,
        "fenced": evidence.fenced,
        "aborts": evidence.aborts,
        "gone": outcome.gone,
        "partitions_added": report.done.get("grown", 0),
        "topics_recreated": report.done.get("recreated", 0),
        "disks_full": report.done.get("disks", 0),
        "longest_stall_seconds": round(report.longest_stall_seconds, 1),
        "control_duplicated": control.outcome.duplicated,
        "counts": not report.missing and control.outcome.duplicated > 0,
        "stall_limit_seconds": STALL_SECONDS,
        "seconds": round(report.seconds, 1),
        "recovery_seconds": round(report.recovery_seconds, 1),
        "seed": plan.seed,
        "protocol": plan.protocol,
        "workers": SIZE,
        "exit_codes": {str(code): count for code, count in sorted(evidence.codes.items())},
        **{
            name: count
            for name, count in asdict(outcome).items()
            if name in {"invented", "misplaced", "deadly", "unordered", "changed"}
        },
        "control": {"sent": control.outcome.sent, "lost": control.outcome.lost, "kills": control.evidence.kills},
    }


def run(given: argparse.Namespace, protocol: Literal["classic", "consumer"]) -> list[str]:
    """Run twice with one protocol, and write the file. Returns the faults."""
    plan = Plan(given.seconds, given.contents, 2 * given.seconds, given.seed, protocol=protocol, **NEEDED)
    share = given.control_seconds / given.seconds
    loose = Plan(
        given.control_seconds,
        int(share * given.contents),
        4 * given.control_seconds,
        given.seed,
        protocol=protocol,
        doubled=1,
        delivery="at_least_once",
    )
    with Disk() as disk, ApacheCluster(disk=disk) as cluster:
        report = one(cluster, plan)
        control = one(cluster, loose)
    found = summary(report, control, plan)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / FILES[protocol]).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    return [
        *report.faults(),
        *report.stalls(),
        *(f"inconclusive, too few {lack}" for lack in report.missing),
        *(f"unexpected exit: {log.splitlines()[0]}" for log in report.surprises),
        *([] if control.outcome.duplicated else ["inconclusive: the at_least_once control run had no duplicates"]),
        *([f"the control run lost {control.outcome.lost}"] if control.outcome.lost else []),
    ]


def main() -> int:
    given = arguments()
    wrong = [f"{protocol}: {words}" for protocol in given.protocol for words in run(given, protocol)]
    print(
        "\n".join(["WRONG:", *wrong]) if wrong else "every content came out exactly once, on the right topic, in order"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
