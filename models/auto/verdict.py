"""What a release is worth: the test contents, tagged by memory alone and with the parts that were taken."""

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from tagbus.models.auto.corpus import RunCorpus
from tagbus.models.auto.selection import Gain, Goal, Trained, figure_of, memory, tagged
from tagbus.models.auto.single import Single, best_cut
from tagbus.models.evaluate.measure import EvaluationSet
from tagbus.stream import quality
from tagbus.stream.contract.events import TaggedContent

FIGURES: Final = ("p_at_1", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece")


class Verdict(BaseModel):
    """Figures on the test contents without and with the parts, and what the goal gains. `trained` is None where no part
    was taken, all is where there are no test contents. `cut`: where a content has one tag or none, the confidence from
    which on it gets one, None without contents to find it by; `single`: the figures at the cut."""

    model_config = ConfigDict(frozen=True)

    parts: tuple[str, ...]
    untrained: dict[str, float] | None = None
    trained: dict[str, float] | None = None
    gain: Gain | None = None
    cut: float | None = None
    single: Single | None = None

    def lines(self) -> Iterator[str]:
        """The same in words."""
        if self.untrained is None:
            yield "there are no test contents: nothing is said of what it is worth"
            return
        for name, row in (("memory alone", self.untrained), ("the release", self.trained)):
            if row is not None:
                yield f"{name}: " + ", ".join(f"{quality.LABELS[figure]} {row[figure]:g}" for figure in FIGURES)
        if self.single is not None:
            yield str(self.single)
        if self.gain is None:
            yield "no trained part was taken: the release is the encoder, tagging by memory alone"
        elif self.gain.low > 0:
            yield f"better than memory alone: {self.gain}"
        elif self.gain.high < 0:
            yield f"worse than memory alone, do not activate it: {self.gain}"
        else:
            yield f"not proven to be better than memory alone: {self.gain}"


async def evaluated(taken: RunCorpus, trained: Trained, parts: Sequence[str], goal: Goal, *, single: bool) -> Verdict:
    """Tag the test contents by memory alone and with these parts. `single`: also by one tag or none, from the
    confidence that is best on the held contents."""
    on, test = tuple(parts), list(taken.corpus.exemplars("test"))
    found, measured = Verdict(parts=on), any(item.accepted for item in test)
    held = taken.held() if single else []
    wanted = any(item.accepted for item in held)
    if not measured and not wanted:
        return found
    async with memory(taken, trained) as bare:
        if wanted:
            cut = best_cut(await tagged(trained.row(on), taken.by(held), held, bare, trained.encoder), held)
            found = found.model_copy(update={"cut": cut})
        if not measured:
            return found
        test_set = taken.by(test)
        before = await tagged(trained.row(()), test_set, test_set.test, bare, trained.encoder)
        found = found.model_copy(update={"untrained": _figures(test_set, before)})
        if on:
            after = await tagged(trained.row(on), test_set, test_set.test, bare, trained.encoder)
            values = (figure_of(goal, results, test_set) for results in (after, before))
            gain = Gain.of(goal, *values)
            found = found.model_copy(update={"trained": _figures(test_set, after), "gain": gain})
        if found.cut is not None:
            results = await tagged(trained.row(on), test_set, test, bare, trained.encoder)
            found = found.model_copy(update={"single": Single.of(found.cut, results, test)})
    return found


def _figures(test_set: EvaluationSet, results: Sequence[TaggedContent]) -> dict[str, float]:
    row = test_set.raw(test_set.ranked(results)).figures()
    return {name: value for name in FIGURES if isinstance(value := row[name], float)}
