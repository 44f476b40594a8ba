"""The demo's judge: a language model on this machine that is asked about contents in the stream.

So small a model judges no better than chance: its weight fitted to decisions is 0, and a real worker would not ask it.
The demo asks it anyway, to show the plumbing: it sets a small weight, and also prints the weight that the demo's own
decisions give it.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np

from tagbus.stream import calibrate
from tagbus.stream.app import assemble, console
from tagbus.stream.app.components import RECALL, Components
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files, folders
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import PREFIX, BudgetSettings, LlmSettings, RetrySettings, Settings
from tagbus.stream.config.base.section import Section
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.release import Fingerprint, JudgeFit, Knots
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.llm import Asked, Judge, Question, Shot
from tagbus.stream.llm.component import NAME
from tagbus.stream.llm.worth import fusion
from tagbus.stream.llm.worth.fusion import Pairs
from tagbus.stream.local.judges import DeciderServer, LlamaServer

Kind = Literal["decider", "local"]

# Weight of the judge's log odds: enough that it is asked, too little to spoil the tags.
WEIGHT: Final = 0.1
# Contents whose best candidate leads by this much, in log odds, are not asked about.
MARGIN: Final = 1.0
# The time that llama.cpp may take in all, and the deadline of one request.
SECONDS: Final = 60
DEADLINE_SECONDS: Final = 120.0
# Contents for measuring its speed, contents that are judged on any machine, and tags of each.
MEASURED: Final = 2
LEAST_CONTENTS: Final = 5
TAGS: Final = 3
PLUMBING: Final = "its judgement is plumbing, not quality: so small a model judges no better than chance"


@dataclass(frozen=True, slots=True)
class DemoJudge:
    """A running server, and the worker's settings for it. `patience`: the longest wait for a result, in seconds.
    `work`: further settings of the worker."""

    kind: Kind
    llm: LlmSettings
    budget: BudgetSettings
    patience: float
    work: Mapping[str, str]

    def variables(self, trained: Mapping[str, str], stack: ExitStack) -> dict[str, str]:
        """The worker's judge settings as environment variables. `trained`: those of its components. `stack` removes the
        file of the weight."""
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagbus-demo-"))) / "calibration.json"
        self._shown(trained).save(place)
        sections = {**_variables("LLM", self.llm), **_variables("BUDGET", self.budget)}
        return {**sections, **self.work, f"{PREFIX}TAGGER__CALIBRATION": str(place)}

    def figures(self, results: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> dict[str, object]:
        """The cost and outcome of judging, as figures and in words. `truth`: the tags that people gave the contents."""
        judged = [one for one in results if NAME in one.path]
        degraded = [reason.reason for one in results for reason in one.degraded if reason.stage == NAME]
        used = [one.usage for one in results if one.usage is not None]
        skipped = len(results) - len(judged) - len(degraded)
        proved = _proved(judged, truth)
        calls, tokens = sum(one.calls for one in used), sum(one.tokens_in + one.tokens_out for one in used)
        model = next((one.versions.llm for one in judged if one.versions.llm), "the language model")
        reasons = ", ".join(f"degraded: {reason}" for reason in sorted(set(degraded))) or "degraded"
        console.print_line(
            f"judge: {model} judged {len(judged)} contents in {calls} calls of {tokens} tokens; {skipped} were "
            f"decisive without it; {len(degraded)} went out {reasons}"
        )
        console.print_line(
            f"{PLUMBING}; its weight of {WEIGHT} is set for the demo, "
            + ("and too few decisions are there to fit one" if proved is None else f"decisions give it {proved:.2f}")
            + "\n"
        )
        return {
            "llm": self.kind,
            "calls": calls,
            "tokens": tokens,
            "cost": round(sum(one.cost or 0.0 for one in used), 6),
            "share_skipped": round(skipped / len(results), 4),
            "share_degraded": round(len(degraded) / len(results), 4),
            "fusion_weight": WEIGHT,
            "fusion_weight_fitted": proved,
        }

    def _shown(self, trained: Mapping[str, str]) -> Calibration:
        """The calibration of the stages before, and the judge's weight."""
        settings = Settings.model_construct(llm=self.llm, components=_components(trained))
        release, components = folders.base_release(settings), Components.of(settings)
        own = assemble.calibration_of(settings, release, components)
        fit = JudgeFit(
            before=Knots(scores=own.scores, probabilities=own.probabilities),
            said=fusion.SAME,
            offset=0.0,
            slope=1.0,
            weight=WEIGHT,
            pairs=0,
            loss_without=0.0,
            loss_with=0.0,
            margin=MARGIN,
        )
        return calibrate.with_judge(calibrate.uncalibrated(components.fingerprint(release.name)), fit)


def started(kind: Kind, stack: ExitStack) -> DemoJudge:
    """Start the server; `stack` stops it. Raises UserError if a package is missing."""
    try:
        from tagbus.stream.llm.client import Unlimited
        from tagbus.stream.llm.open import open_judge
    except ImportError as error:
        raise UserError(f"--llm {kind} needs {error.name}: pip install 'tagbus[llm,llm-local]'") from None
    # Tokens of a local model cost nothing.
    free = BudgetSettings(price_in=0.0)
    if kind == "decider":
        console.say(f"starting sparrow-decider, a System One server; {PLUMBING}")
        server = stack.enter_context(DeciderServer())
        llm = LlmSettings(url=server.url, watch_seconds=0.0)
        return DemoJudge(kind, llm, free, DEADLINE_SECONDS, {})
    console.say(f"starting llama.cpp with SmolLM2-135M; {PLUMBING}")
    llm = LlmSettings(
        url=stack.enter_context(LlamaServer()).url,
        profile="llama.cpp",
        deadline_seconds=DEADLINE_SECONDS,
        in_flight=1,
        candidates=TAGS,
        exemplars=1,
        prompt_tokens=360,
        watch_seconds=0.0,
    )
    content, seconds = asyncio.run(_measured(open_judge(llm, RetrySettings(), Unlimited())))
    tokens = round(content * max(SECONDS / seconds, LEAST_CONTENTS))
    console.say(
        f"a content takes {content:.0f} tokens and {seconds:.1f} s here: the budget is {tokens} tokens, what it takes "
        f"in {tokens / content * seconds:.0f} s"
    )
    # Small batches, one at a time, so that results arrive while the budget lasts.
    small = {f"{PREFIX}BATCH__CONTENTS": "16", f"{PREFIX}BATCH__IN_FLIGHT": "1"}
    return DemoJudge(kind, llm, free.model_copy(update={"tokens_per_day": tokens}), 5 * SECONDS, small)


async def _measured(judge: Judge) -> tuple[float, float]:
    """Tokens of a content, cached ones included, and seconds. Raises DependencyDown without an answer."""
    try:
        asked = list(_questions())
        # The first request includes loading and probing the model.
        await judge.judge(asked[:1])
        since = time.monotonic()
        found = await judge.judge(asked[1:])
    finally:
        await judge.close()
    if failures := [one.failure for one in found if one.failure is not None]:
        raise DependencyDown(f"the language model does not answer: {failures[0]}")
    tokens = sum(one.usage.tokens_in + one.usage.tokens_out for one in found)
    return tokens / len(found), (time.monotonic() - since) / len(found)


def _questions() -> Iterator[Asked]:
    """Contents in the form in which the stage `judge` asks about them."""
    tags = files.all_of(example("tags.jsonl"), files.tag_of)[:TAGS]
    names = {tag.id: tag.name for tag in tags}
    shown = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    contents = files.all_of(example("content.jsonl"), files.content_of)
    for content, exemplar in islice(zip(contents, shown, strict=False), 1 + MEASURED):
        shot = Shot(exemplar.title, exemplar.text, tuple(names.values()))
        yield Asked(content, tuple(Question(tag.id, tag.name, tag.description) for tag in tags), (shot,))


def _proved(judged: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> float | None:
    """The weight that decisions give the judge; None if there are too few."""
    rows = [
        (tag.evidence.unjudged, tag.evidence.scores[NAME], tag.id in truth[one.id], number)
        for number, one in enumerate(judged)
        for tag in one.tags
        if one.id in truth and tag.evidence.unjudged is not None and NAME in tag.evidence.scores
    ]
    if len(rows) < calibrate.FEWEST_PAIRS:
        return None
    score, said, right, content = (np.array(column) for column in zip(*rows, strict=True))
    pairs = Pairs(score.astype(np.float64), said.astype(np.float64), right.astype(np.bool_), content)
    try:
        versions = judged[0].versions
        found = fusion.fit(pairs, Fingerprint(versions.release, f"{RECALL}+{NAME}", {}), versions.backend).judge
    except UserError:
        # All are right, or all wrong.
        return None
    return None if found is None else round(found.weight, 4)


def _components(trained: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The component sections that these environment variables set."""
    found: dict[str, dict[str, str]] = {}
    for variable, value in trained.items():
        _, name, field = variable.lower().split("__")
        found.setdefault(name, {})[field] = value
    return found


def _variables(name: str, section: Section) -> dict[str, str]:
    """The environment variables of a section's fields that differ from their defaults."""
    given = section.model_dump(mode="json", exclude_defaults=True)
    return {f"{PREFIX}{name}__{field.upper()}": str(value) for field, value in given.items()}
