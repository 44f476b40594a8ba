"""Calibration from decisions: the pairs, the bias that their weights correct, and that no worse curve is accepted."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.calibrate import Calibration, fit, log_loss
from tagbus.stream.contract.decision import JudgedTag, ShownTag
from tagbus.stream.contract.events import Versions
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.feedback.learning import AskedContent, Decided, Judged, Observations, refit
from tagbus.stream.quality import ece
from tests.feedback.display import CONTENTS, PRINT, biased
from tests.feedback.parts import NOON, decision, undo

STEPS = {"literal": "literal", "ranker": "rank", "judge": "judge"}
VERSIONS = Versions(
    release="r-1", taxonomy={}, calibration="none", components={"literal": "literal-1", "ranker": "ranker-1"}
)
PATH = ("prepare", "encode", "recall", "literal", "rank", "select", "calibrate")


JUDGED = VERSIONS.model_copy(update={"components": {**VERSIONS.components, "judge": "m-1"}})


def shown(tag: str = "t1", **fields: object) -> ShownTag:
    given: dict[str, object] = {"rank": 1, "score": 0.5, "confidence": 0.4, "stage": "fusion", **fields}
    return ShownTag.model_validate({"tag": tag, **given})


def judged(*decisions: object) -> list[Judged]:
    observations = Observations(STEPS)
    for one in decisions:
        observations.add(one)  # type: ignore[arg-type]
    return [pair for pairs in observations.judged() for pair in pairs]


def of(number: int = 1, *tags: ShownTag, **fields: object) -> object:
    given: dict[str, object] = {"versions": VERSIONS, "path": PATH, "accepted": ("t1",), **fields}
    return decision(number, shown=tags or (shown(),), **given)  # type: ignore[arg-type]


class TestPairs:
    def test_a_decision_on_a_shown_tag_is_one(self) -> None:
        (pair,) = judged(of(1, shown(propensity=0.1)))
        assert pair == Judged("a", NOON + timedelta(seconds=1), PRINT, 0.5, 0.4, 10.0, True)

    def test_what_was_shown_and_not_decided_is_none(self) -> None:
        assert judged(of(1, shown("t2"))) == []
        assert judged(of(accepted=(), unsure=("t1",))) == []

    def test_a_weight_is_at_most_20(self) -> None:
        (pair,) = judged(of(1, shown(propensity=0.001)))
        assert pair.weight == 20

    def test_bulk_decisions_stay_out(self) -> None:
        assert judged(of(mode="bulk")) == []
        # Also as a vote.
        (pair,) = judged(of(1), of(2, who="bob", mode="bulk", accepted=(), rejected=("t1",)))
        assert pair.right

    def test_what_a_contents_own_exemplar_gave_stays_out(self) -> None:
        assert judged(of(1, shown(stage="people", confidence=0.9999))) == []

    def test_a_tag_that_people_disagree_on_is_none(self) -> None:
        assert judged(of(1), of(2, who="bob", accepted=(), rejected=("t1",))) == []

    def test_a_tag_that_is_judged_twice_is_one_pair_as_it_was_shown_last(self) -> None:
        (pair,) = judged(of(1), of(2, shown(score=0.7), who="bob"))
        assert pair.score == 0.7

    def test_a_decision_that_is_taken_back_or_comes_twice_does_not_count(self) -> None:
        assert judged(of(1), undo(2, 1)) == []
        assert len(judged(of(1), of(1))) == 1

    def test_the_path_is_that_of_the_scores(self) -> None:
        (pair,) = judged(of(1, shown(stage="rank")))
        assert pair.fingerprint == Fingerprint("r-1", "recall+literal+rank", VERSIONS.components)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"versions": None},
            {"path": ()},
            {"path": ("../..", "x y")},
            {"versions": VERSIONS.model_copy(update={"release": "No Name"})},
        ],
    )
    def test_of_what_is_no_result_of_ours_there_is_none(self, wrong: dict[str, object]) -> None:
        assert judged(of(**wrong)) == []  # type: ignore[arg-type]
        assert judged(of(1, shown(score=1e300))) == []

    def test_the_oldest_contents_and_withdrawn_ones_are_forgotten(self) -> None:
        observations = Observations(STEPS, contents=2)
        for number in range(3):
            observations.add(of(number, id=f"c{number}"))  # type: ignore[arg-type]
        observations.forget("c2")
        assert [pair.content for pairs in observations.judged() for pair in pairs] == ["c1"]


class TestAsked:
    """Contents that the judge was asked about."""

    ASKED = (JudgedTag(tag="t1", score=1.5, judge=0.9), JudgedTag(tag="t2", score=0.5))
    WITH = ("prepare", "encode", "recall", "literal", "rank", "judge", "select", "calibrate")

    def asked(self, *decisions: object) -> list[AskedContent]:
        observations = Observations(STEPS)
        for one in decisions:
            observations.add(one)  # type: ignore[arg-type]
        return [content for contents in observations.asked() for content in contents]

    def test_a_content_is_one_with_all_its_tags_and_what_people_agree_on(self) -> None:
        seen = (shown(stage="judge", propensity=0.5), shown("t2", stage="judge"))
        (one,) = self.asked(of(1, *seen, judged=self.ASKED, versions=JUDGED, path=self.WITH))
        assert one.tags == self.ASKED
        assert one.decided == {"t1": Decided(True, 0.4, 2.0)}
        assert one.fingerprint == Fingerprint("r-1", "recall+literal+rank+judge", JUDGED.components)

    def test_where_the_judge_changed_nothing_its_path_is_the_same(self) -> None:
        (one,) = self.asked(of(1, shown(stage="rank"), judged=self.ASKED, versions=JUDGED))
        assert one.fingerprint == Fingerprint("r-1", "recall+literal+rank+judge", JUDGED.components)

    def test_without_a_ranker_the_path_has_none(self) -> None:
        versions = VERSIONS.model_copy(update={"components": {"judge": "m-1"}})
        (one,) = self.asked(of(1, shown(stage="judge"), judged=self.ASKED, versions=versions, path=("recall", "rank")))
        assert one.fingerprint == Fingerprint("r-1", "recall+judge", {"judge": "m-1"})

    def test_of_several_decisions_the_latest_that_knows_what_the_judge_said_counts(self) -> None:
        first = of(1, shown(stage="judge"), judged=self.ASKED, versions=JUDGED, path=self.WITH)
        (one,) = self.asked(first, of(2, who="bob", versions=None, path=()))
        assert one.time == NOON + timedelta(seconds=1)
        assert self.asked(first, undo(2, 1)) == []

    def test_another_backend_s_answers_are_left_out_once_a_newer_one_is_asked(self) -> None:
        def asked_by(number: int, backend: str) -> object:
            versions = JUDGED.model_copy(update={"backend": backend})
            given = {"judged": self.ASKED, "versions": versions, "path": self.WITH}
            return of(number, shown(stage="judge"), id=f"c{number}", **given)

        found = self.asked(asked_by(1, "stated"), asked_by(2, "yesno"), asked_by(3, "stated"))
        assert [(one.content, one.backend) for one in found] == [("c1", "stated"), ("c3", "stated")]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"judged": ()},
            {"mode": "bulk"},
            {"versions": None},
            {"path": ("../..",)},
            {"judged": (JudgedTag(tag="t1", score=1e300, judge=0.5),)},
        ],
    )
    def test_of_what_says_nothing_of_the_judge_there_is_none(self, wrong: dict[str, object]) -> None:
        given = {"judged": self.ASKED, "versions": JUDGED, "path": self.WITH, **wrong}
        assert self.asked(of(1, shown(stage="judge"), **given)) == []

    def test_a_pair_of_the_judge_s_scores_names_its_version(self) -> None:
        (pair,) = judged(of(1, shown(stage="judge"), versions=JUDGED, path=self.WITH))
        assert pair.fingerprint == Fingerprint("r-1", "recall+literal+rank+judge", JUDGED.components)
        (before,) = judged(of(1, shown(stage="rank"), versions=JUDGED))
        assert before.fingerprint == Fingerprint("r-1", "recall+literal+rank", VERSIONS.components)


def test_with_5_percent_exploration_the_weights_take_back_what_the_display_does_to_calibration() -> None:
    pairs, scores, right = biased(0.05, 11)
    found = refit(pairs, None)
    assert found is not None
    assert found.curve is not None
    assert found.effective < found.pairs
    unweighted = fit(
        np.array([pair.score for pair in pairs]), np.array([pair.right for pair in pairs]), PRINT, CONTENTS
    )
    assert ece(found.curve.apply(scores), right) <= 0.01
    assert ece(unweighted.apply(scores), right) >= 0.04


def pairs_of(count: int, seed: int, *, flip_first: bool = False) -> list[Judged]:
    """Pairs that are right with probability score, shown with that confidence; or whose oldest are right otherwise."""
    random = np.random.default_rng(seed)
    found = []
    for number, score in enumerate(random.random(count)):
        right = bool(random.random() < score) != (flip_first and number < count * 0.8)
        found.append(Judged(f"c{number}", NOON + timedelta(seconds=number), PRINT, score, score, 1.0, right))
    return found


class TestRefit:
    def test_below_200_pairs_there_is_no_fit(self) -> None:
        assert refit(pairs_of(199, 1), None) is None

    @pytest.mark.parametrize(("count", "kind"), [(200, "platt-"), (999, "platt-"), (1000, "isotonic-")])
    def test_a_sigmoid_from_200_and_isotonic_regression_from_1000(self, count: int, kind: str) -> None:
        wrong = [
            Judged(*(p.content, p.time, p.fingerprint, p.score, 0.999, p.weight, p.right)) for p in pairs_of(count, 2)
        ]
        found = refit(wrong, None)
        assert found is not None
        assert found.curve is not None
        assert found.curve.name.startswith(kind)
        assert found.curve.fitted_on == count - int(count * 0.2)

    @pytest.mark.parametrize("count", [300, 2000])
    def test_a_worse_curve_is_never_taken(self, count: int) -> None:
        """The oldest pairs say the opposite of the newest."""
        found = refit(pairs_of(count, 3, flip_first=True), None)
        assert found is not None
        assert found.new_loss > found.old_loss
        assert found.curve is None

    def test_the_curve_in_force_is_what_it_is_compared_with(self) -> None:
        pairs = pairs_of(3000, 4)
        first = refit(
            [Judged(*(p.content, p.time, p.fingerprint, p.score, 0.5, p.weight, p.right)) for p in pairs], None
        )
        assert first is not None
        assert first.curve is not None
        again = refit(pairs, first.curve)
        assert again is not None
        # The same pairs give the same curve, which is no better than itself.
        assert (again.old_loss, again.curve) == (again.new_loss, None)

    @given(st.integers(200, 1200), st.integers(0, 10**6), st.floats(0.01, 0.99))
    @settings(max_examples=30)
    def test_what_is_taken_has_less_loss_on_the_newest_fifth(self, count: int, seed: int, confidence: float) -> None:
        pairs = [
            Judged(*(p.content, p.time, p.fingerprint, p.score, confidence, 1.0 + seed % 7, p.right))
            for p in pairs_of(count, seed)
        ]
        found = refit(pairs, None)
        assert found is not None
        newest = pairs[count - int(count * 0.2) :]
        right, weights = np.array([p.right for p in newest]), np.array([p.weight for p in newest])
        old = log_loss(np.full(len(newest), confidence), right, weights)
        if found.curve is None:
            assert found.new_loss >= old
        else:
            assert isinstance(found.curve, Calibration)
            assert log_loss(found.curve.apply(np.array([p.score for p in newest])), right, weights) < old

    def test_pairs_that_are_all_right_give_none(self) -> None:
        right = [Judged(*(p.content, p.time, p.fingerprint, p.score, 0.5, 1.0, True)) for p in pairs_of(300, 5)]
        assert refit(right, None) is None
