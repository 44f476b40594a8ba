"""Stage `judge`: a language model is asked about the best candidates, where that is worth it.

Its worth is part of the calibration of the path with it (`JudgeFit`): without one, or with weight 0, it is asked only
about the control share and changes nothing, so that its worth can be fitted. A content that is asked continues with the
fused probabilities. One that is not, because its scores are decisive, or because budget, deadline, breaker or server
refuse, continues with the scores of the stages before, and their calibration.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from traceback import extract_tb
from typing import Final, Protocol

import numpy as np

from tagbus.stream import telemetry
from tagbus.stream.contract.events import Usage
from tagbus.stream.contract.release import JudgeFit
from tagbus.stream.errors import Retryable, TagbusError, UserError, Withheld
from tagbus.stream.llm import Asked, Judge, Judged, Question, Shot
from tagbus.stream.llm import Usage as Taken
from tagbus.stream.llm.batch.answers import Prepared, digest_of
from tagbus.stream.llm.component import NAME
from tagbus.stream.llm.shapes import UNSELECTED
from tagbus.stream.llm.spending.cache import Cache, key_of
from tagbus.stream.llm.worth import cascade, fusion
from tagbus.stream.recall.graph import Found, translated
from tagbus.stream.tagger.rank import seen_by
from tagbus.stream.tagger.shots import Shots
from tagbus.stream.tagger.work import Ranking, Work

log = logging.getLogger(__name__)

# Candidates of the same probability keep the order of the stage before.
_PLACE: Final = 1e-9


class WebKnowledge(Protocol):
    """A second source of knowledge (llm/web)."""

    async def add(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same with knowledge about each content added. It raises nothing."""


@dataclass(frozen=True, slots=True)
class Judging:
    """How the stage asks. `candidates`: limit per content; `control`: the share of contents that are always asked.
    `cost`: of calls, in USD, None without a price. `web`: knowledge besides memory's. `prepared`: earlier answers of
    batches."""

    judge: Judge
    version: str
    shots: Shots
    candidates: int
    control: float
    cache: Cache
    cost: Callable[[Taken], float | None]
    web: WebKnowledge | None = None
    prepared: Prepared | None = None
    # Faults of this program that are already in the log.
    faults: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Fused:
    """The order by fused probabilities (`Ranking`). `judged`: the judge's, of the tags it answered; `asked`: the prior
    scores of all tags asked about."""

    before: Ranking
    fit: JudgeFit
    judged: Mapping[str, float]
    asked: Mapping[str, float]

    @property
    def stage(self) -> str:
        """See `Ranking`."""
        return NAME

    def best(self, count: int) -> Found:
        """See `Ranking`."""
        found = self.before.best(max(count, len(self.judged)))
        ids = sorted(found.scores, key=lambda tag_id: (-found.scores[tag_id], tag_id))
        scores = np.array([found.scores[tag_id] for tag_id in ids], np.float64)
        said = np.array([self.judged.get(tag_id, np.nan) for tag_id in ids], np.float64)
        fused = fusion.apply(self.fit, scores, said) - _PLACE * np.arange(len(ids))
        return replace(found, scores=dict(zip(ids, fused.tolist(), strict=True)))

    def features(self, tag_id: str) -> Mapping[str, float] | None:
        """See `Ranking`."""
        return self.before.features(tag_id)

    def unjudged(self, tag_id: str) -> float | None:
        """See `Ranking`."""
        return self.asked.get(tag_id)


class JudgeStage:
    """The stage. It never fails, loses or delays a content, and never adds a tag."""

    name = NAME

    def __init__(self, judging: Judging, fit: JudgeFit | None = None) -> None:
        """`fit`: the judge's worth, None if unknown."""
        self._judging = judging
        self._fit = fit if fit is not None and fit.weight > 0 else None
        # Backends that answered and that the fit is not for; whether the last answer was of one of them.
        self._strange: set[str] = set()
        self._is_strange = False

    def fitted(self, fit: JudgeFit | None) -> "JudgeStage":
        """The same stage with a calibration's fit."""
        return JudgeStage(self._judging, fit)

    def asking_all(self) -> "JudgeStage":
        """The stage for fits and measurements: every content is asked, and no score is changed."""
        return _AskAll(self._judging)

    async def would_ask(self, works: Sequence[Work]) -> list[Asked]:
        """The questions about each content, where it asks; nothing is sent. Raises DependencyDown as `run` does."""
        shots = await self._judging.shots.of(works)
        tags = [list(_undecided(work, self._judging.candidates)) for work in works]
        return [_asked(work, own, some) for work, own, some in zip(works, tags, shots, strict=True)]

    async def to_prepare(self, works: Sequence[Work]) -> list[Asked | None]:
        """The full questions about each content, web knowledge included; None where it would not ask."""
        sent = [work for work in works if not self._left_out(work, _undecided(work, self._judging.candidates))]
        asked = iter(await self._with_web(await self.would_ask(sent)))
        going = set(map(id, sent))
        return [next(asked) if id(work) in going else None for work in works]

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`. Raises DependencyDown if memory does not answer."""
        sent = []
        for work in works:
            scores = _undecided(work, self._judging.candidates)
            if outcome := self._left_out(work, scores):
                _count(outcome)
                work.leave_out(NAME)
            else:
                sent.append((work, scores))
        if sent:
            await self._ask(sent)

    def _left_out(self, work: Work, scores: Mapping[str, float]) -> str:
        """Why a content is not asked about; empty: it is."""
        if not scores:
            return "without_candidates"
        if cascade.is_control(work.content.id, self._judging.control):
            return ""
        if self._fit is None or self._is_strange:
            return "without_weight"
        before = fusion.apply(self._fit, np.array(list(scores.values())), np.full(len(scores), np.nan))
        return "decisive" if cascade.skips(self._fit.margin, cascade.lead(before)) else ""

    async def _ask(self, sent: Sequence[tuple[Work, Mapping[str, float]]]) -> None:
        shots = await self._judging.shots.of([work for work, _ in sent])
        asked = [_asked(work, list(scores), own) for (work, scores), own in zip(sent, shots, strict=True)]
        keys = [key_of(self._judging.version, one) for one in asked]
        found = dict(enumerate(self._judging.cache.get(keys)))
        # A batch's answer was requested explicitly, and is already paid for.
        paid = {index: judged for index, one in enumerate(asked) if (judged := self._prepared(one)) is not None}
        new = [index for index in found if index not in paid and found[index] is None]
        without, answers = "refused", list[Judged]()
        try:
            answers = await self._answers([asked[index] for index in new])
        except UserError as error:
            # A changed key, a removed model: contents do not wait until an operator fixes that.
            log.error("the language model refuses to be asked: %s", error)
        except TagbusError:
            raise
        except Exception as error:
            # An answer that nobody thought of must not send its contents to the dead letters.
            without = "failed"
            self._tell(error)
        paid |= dict(zip(new, answers, strict=False))
        for index, judged in paid.items():
            found[index] = judged
            self._judging.cache.put(keys[index], judged)
            self._bill(sent[index][0], judged)
        for index, (work, scores) in enumerate(sent):
            self._apply(work, scores, found[index], without)

    def _tell(self, error: Exception) -> None:
        """Log a fault of this program, once. Not its words, which may hold an answer's text."""
        last = extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        if fault not in self._judging.faults:
            self._judging.faults.add(fault)
            log.error("an answer of the language model cannot be used, contents go on without it: %s", fault)

    def _prepared(self, asked: Asked) -> Judged | None:
        prepared = self._judging.prepared
        given = None if prepared is None else prepared.take(digest_of(self._judging.version, asked.content))
        return None if given is None else given.judged(asked)

    async def _answers(self, asked: Sequence[Asked]) -> list[Judged]:
        """Raises UserError as `Judge.judge` does."""
        if not asked:
            return []
        return await self._judging.judge.judge(await self._with_web(asked))

    async def _with_web(self, asked: Sequence[Asked]) -> Sequence[Asked]:
        web = self._judging.web
        return asked if web is None or not asked else await web.add(asked)

    def _apply(self, work: Work, scores: Mapping[str, float], judged: Judged | None, without: str) -> None:
        """`without`: the reason if it was not judged."""
        fit = self._fit_of(judged)
        if judged is None:
            _degrade(work, fit, without)
            return
        work.prompt, work.llm, work.backend = judged.prompt, judged.model, judged.backend
        answers = zip(scores, judged.answers, strict=True)
        said = {tag_id: answer.probability for tag_id, answer in answers if answer.probability is not None}
        if judged.failure is not None:
            _degrade(work, fit, _reason(judged.failure))
        elif all(answer.unknown == UNSELECTED for answer in judged.answers):
            # The model chose none of the candidates: an answer that asking again would only repeat.
            _count("unselected")
            work.leave_out(NAME)
        elif not said:
            _degrade(work, fit, "unknown")
        else:
            _count("judged")
            work.found = {**work.found, NAME: said}
            if fit is None or work.ranking is None:
                work.leave_out(NAME)
            else:
                work.ranking = Fused(work.ranking, fit, said, scores)

    def _fit_of(self, judged: Judged | None) -> JudgeFit | None:
        """The judge's worth for these answers: None for those of a backend that it was not fitted to."""
        backend = None if judged is None else judged.backend
        if self._fit is None or backend is None:
            return self._fit
        self._is_strange = not fusion.fits(self._fit, backend)
        if not self._is_strange:
            return self._fit
        if backend not in self._strange:
            self._strange.add(backend)
            log.warning(
                "the judge is asked by %s, and its calibration is fitted to %s: its answers change nothing, and only "
                "the control share is asked; set TAGBUS_LLM__BACKEND=%s, or fit the calibration again",
                *(backend, self._fit.backend, self._fit.backend),
            )
        return None

    def _bill(self, work: Work, judged: Judged) -> None:
        taken = judged.usage
        if not taken.calls:
            return
        cost = self._judging.cost(taken) if judged.cost is None else judged.cost
        paid = {} if cost is None else {"cost": round(cost, 9), "currency": "USD"}
        work.usage = Usage(calls=taken.calls, tokens_in=taken.tokens_in, tokens_out=taken.tokens_out).model_copy(
            update=paid
        )


class _AskAll(JudgeStage):
    """See `JudgeStage.asking_all`."""

    def fitted(self, fit: JudgeFit | None) -> JudgeStage:  # noqa: ARG002
        """Returns itself."""
        return self

    def _left_out(self, work: Work, scores: Mapping[str, float]) -> str:  # noqa: ARG002
        return "" if scores else "without_candidates"


def _undecided(work: Work, count: int) -> dict[str, float]:
    """The scores of the best candidates without a decision by people, best first."""
    if work.ranking is None:
        return {}
    seen = seen_by(work)
    decided = seen.rejected.union(seen.accepted)
    scores = work.ranking.best(count + len(decided)).scores
    ids = [tag_id for tag_id in scores if tag_id in work.names and tag_id not in decided]
    return {tag_id: scores[tag_id] for tag_id in sorted(ids, key=lambda one: (-scores[one], one))[:count]}


def _asked(work: Work, tags: Sequence[str], shots: tuple[Shot, ...]) -> Asked:
    return Asked(
        content=work.content,
        questions=tuple(_question(work, tag_id) for tag_id in tags),
        shots=shots,
        knowledge=tuple(work.knowledge),
        language=work.content.language,
        deadline=work.deadline,
    )


def _question(work: Work, tag_id: str) -> Question:
    payload = work.payloads[tag_id]
    name = translated(payload).get(work.content.language or "", work.names[tag_id])
    return Question(tag_id, name, str(payload.get("description", "")))


def _degrade(work: Work, fit: JudgeFit | None, reason: str) -> None:
    """Continue a content without the judge; not reported if the judge would have changed nothing."""
    _count("degraded")
    if fit is None:
        work.leave_out(NAME)
    else:
        work.skip(NAME, reason)


def _reason(failure: Retryable) -> str:
    return failure.reason if isinstance(failure, Withheld) else "dependency"


def _count(outcome: str) -> None:
    telemetry.LLM_CONTENTS.labels(outcome=outcome).inc()
