"""Checks of what an operator changes while contents come: the budget of the judge, and the release."""

import math
import sys
import time
from typing import Final

from tagbus.stream.acceptance.report import Finding
from tagbus.stream.acceptance.run import KILL_RATE, Run
from tagbus.stream.acceptance.twin import TWIN
from tagbus.stream.config import PREFIX
from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.command import output_of

# Judged contents that a budget is made for, how many times as many come, and the most contents that come for that.
AFFORDED, TIMES, MOST = 5, 3, 1_000
# A worker may have requests under way when the budget ends.
TOLERANCE: Final = 0.1
BUILD_SECONDS: Final = 900.0
GOES_OVER_SECONDS: Final = 180.0
PORTION_SECONDS: Final = 1.0


def budget(run: Run) -> Finding:
    """The judge gets a budget of a few contents: it is kept, and the other contents come out without the judge."""
    if run.settings.llm.url is None:
        return Finding(name="budget", verdict="not run", words="TAGBUS_LLM__URL is not set: there is no judge")
    if not run.load.judged:
        words = "the judge was asked about no content so far: its fitted weight is 0, or the cascade skips it"
        return Finding(name="budget", verdict="not run", words=words)
    limit = max(1, round(AFFORDED * run.load.tokens / run.load.judged))
    count = min(MOST, math.ceil(TIMES * AFFORDED * run.load.published / run.load.judged))
    before, degraded = run.load.tokens, run.load.degraded["budget"]
    run.fleet.restart({f"{PREFIX}BUDGET__TOKENS_PER_DAY": str(limit)})
    run.load.steady(count, run.rate, run.keep)
    run.load.until_out(run.keep)
    spent, without = run.load.tokens - before, run.load.degraded["budget"] - degraded
    run.fleet.restart({})
    figures = {"limit_tokens": limit, "spent_tokens": spent, "contents": count, "without_judge": without}
    words = f"{spent} tokens of {limit} spent; {without} of {count} contents came out without the judge, and say so"
    if spent > (1 + TOLERANCE) * limit:
        return Finding(name="budget", verdict="failed", words=words, figures=figures)
    if not without:
        return Finding(name="budget", verdict="not run", words=f"{words}: too few needed it", figures=figures)
    return Finding(name="budget", verdict="passed", words=words, figures=figures)


def roll_back(run: Run) -> Finding:
    """A second release goes into force and the first one back, while contents come and workers run."""
    _command(run, "release", "build", TWIN)
    figures: dict[str, float] = {}
    for name, release in (("over", TWIN), ("back", run.place.release)):
        _command(run, "release", "activate", release)
        figures[f"{name}_seconds"] = round(_until(run, release), 1)
    words = (
        f"workers tagged with the other release after {figures['over_seconds']} s, and with the first one again "
        f"after {figures['back_seconds']} s"
    )
    return Finding(name="roll-back", verdict="passed", words=words, figures=dict(figures))


def _until(run: Run, release: str) -> float:
    """Publish until a whole portion is tagged with this release. Returns the seconds. Raises DependencyDown."""
    started = time.monotonic()
    while time.monotonic() < started + GOES_OVER_SECONDS:
        before = run.load.releases.copy()
        run.steady(PORTION_SECONDS, KILL_RATE)
        run.load.until_out(run.keep)
        if set(run.load.releases - before) == {release}:
            return time.monotonic() - started
    raise DependencyDown(f"results are not of release {release} after {GOES_OVER_SECONDS:.0f} s")


def _command(run: Run, *words: str) -> None:
    """Run a command of tagbus. Raises DependencyDown with what it said where it fails."""
    command = [sys.executable, "-m", "tagbus.stream.cli", *words]
    output_of(f"tagbus {' '.join(words)}", command, BUILD_SECONDS, run.fleet.workers[0].environment())
