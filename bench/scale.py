"""A day of lag, scaling and rebalances, simulated second by second with the rates of `tagbus plan`.

It compares the plan's time to catch up with that of a queue.

    python bench/scale.py [--out bench/results/scale.json] [--picture bench/results/scale.png]

Contents arrive in a daily wave with the plan's peak at 16:00. At 14:00 a broker dies: nothing is committed for 45
seconds, the session timeout. At 17:00 the producers send ten times as much for ten minutes. The autoscaler asks every
30 seconds how many contents lag, as KEDA does, and wants a worker for as many as one clears in that time, never more
than partitions. A new worker takes the plan's seconds to start, and every rebalance stops the whole group briefly.
Scaling in waits until workers were idle for five minutes.

Each load is run three times: with the autoscaler from the mean's workers, with the plan's workers as its least, and
with the plan's workers throughout, for which the plan computes the time to catch up. `late` is the share of contents
that wait for more than the objective's 10 seconds while nothing fails. Only the queue and the autoscaler are simulated,
not Kafka: no broker runs.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.app.capacity.plan import DAY, Load, plan, value

POLL_SECONDS = 30
COOL_SECONDS = 300
REBALANCE_SECONDS = 3
DEAD_AT, DEAD_SECONDS = 14 * 3600, 45
BURST_AT, BURST_SECONDS, BURST = 17 * 3600, 600, 10.0
# The objective: 99% within this time.
LATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Day:
    """The course of a day, by second."""

    arrivals: NDArray[np.float64]
    lag: NDArray[np.float64]
    workers: NDArray[np.int64]


def arrivals(load: Load) -> NDArray[np.float64]:
    """Return the contents of each second: mean (without the burst) and maximum are the load's mean and peak."""
    seconds = np.arange(DAY)
    # Exponent of a raised cosine whose maximum is `peak` times its mean.
    wave = (1 + np.cos(2 * np.pi * (seconds - 16 * 3600) / DAY)) / 2
    low, high = 0.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (wave**middle).mean() < load.peak else (low, middle)
    shape = wave**low
    rate = load.contents_a_day / DAY * shape / shape.mean()
    rate[BURST_AT : BURST_AT + BURST_SECONDS] *= BURST
    return np.asarray(rate)


def simulate(load: Load, least: int, most: int) -> Day:
    """Simulate a day with these least workers, which run from the start, and most workers."""
    found = plan(load)
    speed = found.rate_a_worker / value("utilisation")
    incoming, lag, counts = arrivals(load), np.zeros(DAY), np.zeros(DAY, np.int64)
    workers, starting, idle, paused, waiting = least, [], 0, 0, 0.0
    for second in range(DAY):
        ready = [at for at in starting if at <= second]
        if ready:
            starting = [at for at in starting if at > second]
            workers, paused = workers + len(ready), second + REBALANCE_SECONDS
        if second % POLL_SECONDS == 0:
            # One worker per backlog that one clears until the next poll, and never below the least.
            wanted = min(most, max(least, math.ceil(waiting / (found.rate_a_worker * POLL_SECONDS))))
            have = workers + len(starting)
            if wanted > have:
                starting += [second + int(value("start_seconds"))] * (wanted - have)
                idle = 0
            elif wanted < have:
                idle += POLL_SECONDS
                if idle >= COOL_SECONDS and not starting:
                    workers, paused, idle = wanted, second + REBALANCE_SECONDS, 0
            else:
                idle = 0
        dead = DEAD_AT <= second < DEAD_AT + DEAD_SECONDS
        able = 0.0 if dead or second < paused else workers * speed
        waiting = max(0.0, waiting + incoming[second] - able)
        lag[second], counts[second] = waiting, workers
    return Day(incoming, lag, counts)


def catch_up(day: Day, since: int, rate: float) -> int | None:
    """Return the seconds from an end until the lag is below five seconds' worth; None if not within the day."""
    below = np.nonzero(day.lag[since:] < 5 * rate)[0]
    return int(below[0]) if len(below) else None


def calm(day: Day, quiet: NDArray[np.bool_]) -> dict[str, float]:
    """Return the figures of the seconds without faults: `late` is the share of contents that wait longer than
    LATE_SECONDS."""
    arrived = day.arrivals[quiet]
    waits = day.lag[quiet] / np.maximum(arrived, 1e-9)
    return {
        "late": round(float(arrived[waits > LATE_SECONDS].sum() / arrived.sum()), 3),
        "lag_seconds_p99": round(float(np.percentile(waits, 99)), 1),
        "workers_most": int(day.workers[quiet].max()),
    }


def simulated(load: Load) -> tuple[dict[str, object], Day]:
    """Return the simulated figures of a load, beside those of its plan."""
    found = plan(load)
    day = simulate(load, found.workers_mean, found.partitions)
    kept = simulate(load, found.workers, found.partitions)
    fixed = simulate(load, found.workers, found.workers)
    after, dead = BURST_AT + BURST_SECONDS, DEAD_AT + DEAD_SECONDS
    rate = float(day.arrivals[after])
    quiet = np.ones(DAY, bool)
    quiet[DEAD_AT : DEAD_AT + 1800] = quiet[BURST_AT:] = False
    return {
        "load": asdict(load),
        "plan": {"workers": found.workers, "workers_mean": found.workers_mean, "partitions": found.partitions},
        "workers_most": int(day.workers.max()),
        "workers_mean": round(float(day.workers.mean()), 2),
        "without_faults": {"least_of_the_mean": calm(day, quiet), "least_of_the_plan": calm(kept, quiet)},
        "dead_broker": {"lag": round(float(day.lag[dead - 1])), "seconds": catch_up(day, dead, found.mean_rate)},
        "burst": {"lag": round(float(day.lag[after])), "seconds": catch_up(day, after, found.mean_rate)},
        "burst_with_the_plans_workers": {
            "lag": round(float(fixed.lag[after])),
            "seconds": catch_up(fixed, after, found.mean_rate),
            # Assumes that the rate at its end continues: an upper bound while the wave falls.
            "plan_seconds": round(found.catch_up_seconds(float(fixed.lag[after]), rate)),
        },
    }, day


def picture(days: dict[str, Day], file: Path) -> None:
    """Draw contents, lag and workers over the day, one column per load."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(days), figsize=(6 * len(days), 8), sharex=True, squeeze=False)
    hours = np.arange(DAY) / 3600
    for column, (name, day) in enumerate(days.items()):
        for row, (words, values) in enumerate(
            (("contents a second", day.arrivals), ("contents that wait", day.lag), ("workers", day.workers))
        ):
            axis = axes[row][column]
            axis.plot(hours[::30], values[::30], linewidth=1)
            axis.set_ylabel(words)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(name)
        axes[2][column].set_xlabel("hour of the day: 14 a broker dies, 17 ten times as much")
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    plt.close(figure)


LOADS = {
    "a million contents a day": Load(1e6, llm_share=0.1),
    "a billion contents a day": Load(1e9, tags=1_000_000, exemplars=50_000_000, llm_share=0.01, cores=16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/scale.json"))
    parser.add_argument("--picture", type=Path, default=Path("bench/results/scale.png"))
    arguments = parser.parse_args()
    rows, days = [], {}
    for name, load in LOADS.items():
        row, days[name] = simulated(load)
        rows.append({"name": name, **row})
        print(json.dumps(rows[-1]))
    arguments.out.write_text(
        json.dumps({"what": "simulated, no broker runs", "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    picture(days, arguments.picture)


if __name__ == "__main__":
    main()
