"""Checks of changes that an operator makes under load: the judge's budget, and the release."""

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

# Judged contents that the budget covers, the multiple of them that is published, and the maximum number published.
AFFORDED, TIMES, MOST = 5, 3, 1_000
# A worker may have requests in flight when the budget ends.
TOLERANCE: Final = 0.1
BUILD_SECONDS: Final = 900.0
GOES_OVER_SECONDS: Final = 180.0
PORTION_SECONDS: Final = 1.0


def budget(run: Run) -> Finding:
    """Give the judge a budget for a few contents: it is kept, and the other contents are tagged without the judge."""
    if run.settings.llm.url is None:
        return Finding(name="budget", verdict="not run", words="TAGBUS_LLM__URL is not set: there is no judge")
    if not run.load.judged:
        words = "the judge has been asked about no content: its fitted weight is 0, or the cascade skips it"
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
    words = f"{spent} tokens of {limit} spent; {without} of {count} contents are marked as tagged without the judge"
    if spent > (1 + TOLERANCE) * limit:
        return Finding(name="budget", verdict="failed", words=words, figures=figures)
    if not without:
        return Finding(name="budget", verdict="not run", words=f"{words}: too few needed it", figures=figures)
    return Finding(name="budget", verdict="passed", words=words, figures=figures)


def roll_back(run: Run) -> Finding:
    """Activate a second release and roll back to the first, under load."""
    _command(run, "release", "build", TWIN)
    figures: dict[str, float] = {}
    for name, release in (("over", TWIN), ("back", run.sandbox.release)):
        _command(run, "release", "activate", release)
        figures[f"{name}_seconds"] = round(_until(run, release), 1)
    words = (
        f"workers tagged with the other release after {figures['over_seconds']} s, and with the first one again "
        f"{figures['back_seconds']} s after the rollback"
    )
    return Finding(name="roll-back", verdict="passed", words=words, figures=dict(figures))


def _until(run: Run, release: str) -> float:
    """Publish until a whole portion is tagged with this release. Returns the seconds it took. Raises DependencyDown."""
    started = time.monotonic()
    while time.monotonic() < started + GOES_OVER_SECONDS:
        before = run.load.releases.copy()
        run.steady(PORTION_SECONDS, KILL_RATE)
        run.load.until_out(run.keep)
        if set(run.load.releases - before) == {release}:
            return time.monotonic() - started
    raise DependencyDown(f"no results of release {release} within {GOES_OVER_SECONDS:.0f} s")


def _command(run: Run, *words: str) -> None:
    """Run a command of tagbus. Raises DependencyDown with its output if it fails."""
    command = [sys.executable, "-m", "tagbus.stream.cli", *words]
    output_of(f"tagbus {' '.join(words)}", command, BUILD_SECONDS, run.fleet.workers[0].environment())
