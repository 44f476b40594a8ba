"""People's decisions: exactly once under kills, time to a worker's memory, and calibration under bias.

    python bench/feedback.py [--out FILE] [--seed N] [--decisions 10000] [--kills 10] [--samples 300]

Apache Kafka on this machine. `kills`: 20 people decide on 500 contents; `tagbus feedback` is killed (SIGKILL) ten times
while it joins. Each decision must have changed the state once, `exemplars` must match the log (folded separately, and
by a second joiner that reads it from its start), and undoing the second half must restore the first. `memory`: the
time from a decision to a worker's memory. `bias`: a simulated display; ECE over all candidates of a curve fitted to
the shown candidates, with and without weights. Exits with code 1 if one of these fails.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tagbus.stream.calibrate import fit
from tagbus.stream.config import Settings
from tagbus.stream.contract.decision import Decision
from tagbus.stream.feedback.learning import refit
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker
from tagbus.stream.quality import ece
from tests.bus.harness import settings
from tests.feedback.display import PRINT, biased
from tests.index.parts import encoder, memory
from tests.kafka import feedback_log
from tests.support import consume_all, create_topics, unique, wait_until

RESULTS = Path(__file__).parent / "results" / "feedback.json"
COMPACT = {"cleanup.policy": "compact"}
PARTITIONS = 4
SECONDS = 600
EXPLORE = 0.05
Json = dict[str, object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--samples", type=int, default=300, help="decisions whose way to memory is timed")
    return parser.parse_args()


def topics(address: str) -> dict[str, str]:
    """Return the settings of a run with separate topics."""
    compacted = ("exemplars", "feedback_state", "tags", "releases")
    names = {word: unique(word) for word in (*compacted, "feedback", "feedback_dead_letters")}
    layouts = {
        name: (1 if word == "releases" else PARTITIONS, COMPACT if word in compacted else {})
        for word, name in names.items()
    }
    create_topics(address, layouts)
    return names


@contextmanager
def joiner(given: Settings) -> Iterator[LocalWorker]:
    """Start a static member: its successor gets its partitions immediately."""
    extra = {"TAGBUS_KAFKA__MEMBERSHIP": "static", "TAGBUS_BATCH__CONTENTS": "20", "TAGBUS_BATCH__SECONDS": "0.02"}
    with LocalWorker(given, extra, "feedback") as process:
        process.wait_until_ready()
        yield process


def joined(given: Settings) -> int:
    return len(consume_all(given.kafka.brokers, given.topics.feedback_state))


def settle(given: Settings, count: int) -> None:
    """Wait until so many decisions are joined."""
    wait_until(lambda: joined(given) >= count, SECONDS, f"{count} decisions")


def kept(given: Settings) -> dict[str, object]:
    """Return the current exemplars."""
    found = feedback_log.last(given.kafka.brokers, given.topics.exemplars)
    return {content: one for content, one in found.items() if one is not None}


def by_log(given: Settings) -> dict[str, object]:
    found = feedback_log.replayed(given.kafka.brokers, given.topics.feedback)
    return {content: one for content, one in found.items() if one is not None}


def kills(address: str, asked: argparse.Namespace) -> Json:
    """Kill the joiner repeatedly while it works, and compare the results."""
    given = settings(address, topics(address))
    decided = feedback_log.decisions(asked.decisions, people=20, contents=500, seed=asked.seed)
    half = len(decided) // 2
    chance, rows, sent = random.Random(asked.seed), list[Json](), 0  # noqa: S311
    for kill in range(asked.kills):
        part = decided[kill * half // asked.kills : (kill + 1) * half // asked.kills]
        with joiner(given) as process:
            before = joined(given)
            with feedback_log.trickling(address, given.topics.feedback, part):
                wait_until(lambda seen=before: joined(given) > seen, SECONDS, "work")  # type: ignore[misc]
                time.sleep(chance.random())
                process.process.kill()
                process.process.wait()
                # More decisions come while it is down.
        sent += len(part)
        rows.append({"kill": kill, "sent": sent, "joined": joined(given)})
        print(rows[-1], flush=True)
    with joiner(given) as process:
        settle(given, half)
        first = kept(given)
        # The second half, a tenth of it twice; then all of it is undone.
        later = decided[half:]
        feedback_log.send(address, given.topics.feedback, [*later, *later[: len(later) // 10]])
        settle(given, len(decided))
        wait_until(lambda: kept(given) == by_log(given), SECONDS, "exemplars as the log says")
        changed = sum(first.get(content) != one for content, one in kept(given).items())
        replay = replayed(given)
        feedback_log.send(address, given.topics.feedback, undone := feedback_log.undone(later))
        settle(given, len(decided) + len(undone))
        process.stop()
    feedback_log.each_once(address, given.topics.feedback, given.topics.feedback_state)
    ids = feedback_log.ids(consume_all(address, given.topics.feedback_state))
    return {
        "decisions": len(decided),
        "people": 20,
        "kills": rows,
        "interrupted": sum(row["joined"] < row["sent"] for row in rows),  # type: ignore[operator]
        "ids_kept": len(ids),
        "ids_each_once": len(set(ids)) == len(ids) == len(decided) + len(later),
        "exemplars": len(first),
        "changed_by_the_second_half": changed,
        "equals_the_log": kept(given) == by_log(given),
        "equals_a_replay_from_zero": replay,
        "undo_restores_exactly": kept(given) == first,
    }


def replayed(given: Settings) -> bool:
    """Return whether a joiner that reads the log from its start into other topics yields the same exemplars."""
    other = topics(given.kafka.brokers) | {"feedback": given.topics.feedback}
    again = settings(given.kafka.brokers, other, kafka={"instance": "replay"})
    with joiner(again) as process:
        settle(again, joined(given))
        process.stop()
    return kept(again) == kept(given)


async def latencies(address: str, asked: argparse.Namespace) -> list[float]:
    """Measure the seconds from producing a decision until a memory that follows the topics has its exemplar."""
    given = settings(address, topics(address))
    store = memory()
    follower = Follower(given, Projection(encoder(), store))
    following = asyncio.create_task(follower.run())
    await follower.ready.wait()
    found = []
    with LocalWorker(given, {"TAGBUS_KAFKA__MEMBERSHIP": "static"}, "feedback") as process:
        await asyncio.to_thread(process.wait_until_ready)
        for number, one in enumerate(feedback_log.decisions(asked.samples, 20, 10**9, asked.seed)):
            decided: Decision = one.model_copy(update={"title": f"Title {number}"})
            started = time.monotonic()
            await asyncio.to_thread(feedback_log.send, address, given.topics.feedback, [decided])
            key = f"{decided.id}/people"
            while key not in await store.exemplars.fetch([key]):
                await asyncio.sleep(0.005)
            found.append(round(time.monotonic() - started, 4))
        process.stop()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return found


def bias(seed: int) -> Json:
    """Return the ECE over all candidates with and without weights."""
    pairs, scores, right = biased(EXPLORE, seed)
    found = refit(pairs, None)
    plain = fit(np.array([one.score for one in pairs]), np.array([one.right for one in pairs]), PRINT, len(pairs))
    if found is None or found.curve is None:
        raise SystemExit("no curve was taken")
    return {
        "seed": seed,
        "pairs": found.pairs,
        "effective": round(found.effective),
        "ece_weighted": round(ece(found.curve.apply(scores), right), 4),
        "ece_unweighted": round(ece(plain.apply(scores), right), 4),
    }


def main() -> int:
    asked = arguments()
    with ApacheKafka() as broker:
        seconds = asyncio.run(latencies(broker.address, asked))
        under_kills = kills(broker.address, asked)
    biases = [bias(seed) for seed in range(asked.seed, asked.seed + 5)]
    p50, p95, p99 = (round(float(one), 3) for one in np.percentile(seconds, (50, 95, 99)))
    right = {
        "kills": all(value for name, value in under_kills.items() if isinstance(value, bool)),
        "memory_p95_at_most_2_s": p95 <= 2,
        "ece_weighted_at_most_0.01": all(float(str(row["ece_weighted"])) <= 0.01 for row in biases),
        "ece_unweighted_at_least_0.04": all(float(str(row["ece_unweighted"])) >= 0.04 for row in biases),
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, encoding="utf-8", check=False)
    report: Json = {
        "commit": commit.stdout.strip(),
        "seed": asked.seed,
        "right": right,
        "kills": under_kills,
        "memory": {"p50_seconds": p50, "p95_seconds": p95, "p99_seconds": p99, "seconds": seconds},
        "bias": {"explore": EXPLORE, "rows": biases},
    }
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"right": right, "p95_seconds": p95, "bias": biases}))
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
