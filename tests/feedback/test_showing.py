"""What people are shown, and that the propensities match its frequencies."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.config import FeedbackSettings
from tagbus.stream.contract.decision import JudgedTag
from tagbus.stream.contract.events import Evidence, ScoredTag, TaggedContent, Versions
from tagbus.stream.feedback.showing import display, show

SEEDS = 6000


def result(content_id: str, tags: int) -> TaggedContent:
    found = tuple(
        ScoredTag(id=f"t{n}", name="n", score=tags - n, confidence=(tags - n) / 99, stage="recall", evidence=Evidence())
        for n in range(tags)
    )
    versions = Versions(release="r", taxonomy={}, calibration="none")
    return TaggedContent(id=content_id, tags=found, versions=versions, path=("recall",))


@pytest.mark.parametrize(
    ("candidates", "slots", "explore", "blind"),
    [
        (20, 10, 0.05, 0.0),
        (20, 10, 0.1, 0.0),
        (25, 10, 0.13, 0.0),
        (13, 10, 0.5, 0.0),
        (40, 5, 0.3, 0.1),
        (6, 4, 0.0, 1.0),
    ],
)
def test_a_propensity_is_how_often_a_candidate_is_shown(
    candidates: int, slots: int, explore: float, blind: float
) -> None:
    seen: Counter[int] = Counter()
    # Horvitz and Thompson's estimate of how many contents there are, by each candidate.
    estimate: Counter[int] = Counter()
    explored = 0
    for number in range(SEEDS):
        _, chosen = display(f"content-{number}", candidates, slots, explore, blind)
        assert len({slot.candidate for slot in chosen}) == len(chosen) == min(slots, candidates)
        explored += sum(slot.policy == "explore" for slot in chosen)
        for slot in chosen:
            seen[slot.candidate] += 1
            if slot.policy != "blind":
                estimate[slot.candidate] += 1 / slot.propensity  # type: ignore[assignment]
    shares = [seen[candidate] / SEEDS for candidate in range(candidates)]
    # Five standard deviations of a share.
    assert all(share > 0 or not explore for share in shares)
    if not blind:
        assert all(
            abs(estimate[candidate] / SEEDS - 1) < 5 * (1 / share / SEEDS) ** 0.5
            for candidate, share in enumerate(shares)
            if share
        )
        assert explored / SEEDS == pytest.approx(min(explore * slots, candidates - slots), rel=0.1, abs=0.01)


def test_a_share_of_the_contents_is_blind_and_drawn_without_regard_to_confidence() -> None:
    shown = [display(f"content-{number}", 20, 5, 0.05, 0.02) for number in range(SEEDS)]
    blind = [slots for is_blind, slots in shown if is_blind]
    assert len(blind) / SEEDS == pytest.approx(0.02, abs=0.008)
    assert {(slot.policy, slot.propensity) for slots in blind for slot in slots} == {("blind", 0.25)}
    assert len({slot.candidate for slots in blind for slot in slots}) == 20


def test_each_decile_below_the_cut_is_shown_as_often() -> None:
    shown = [display(f"content-{number}", 110, 10, 0.1, 0.0)[1] for number in range(SEEDS)]
    deciles = Counter((slot.candidate - 9) // 10 for slots in shown for slot in slots if slot.policy == "explore")
    assert max(deciles.values()) / min(deciles[number] for number in range(10)) < 1.4


@given(st.text(max_size=20), st.integers(0, 60), st.integers(1, 20), st.floats(0, 0.5), st.floats(0, 1))
def test_any_content_is_shown_at_most_so_much_and_always_the_same(
    seed: str, candidates: int, slots: int, explore: float, blind: float
) -> None:
    found = display(seed, candidates, slots, explore, blind)
    assert found == display(seed, candidates, slots, explore, blind)
    assert len(found[1]) == min(slots, candidates)
    assert all(0 < slot.propensity <= 1 and slot.candidate < candidates for slot in found[1])


def test_what_fits_is_shown_whole() -> None:
    assert [slot.propensity for slot in display("a", 3, 3, 0.5, 0.0)[1]] == [1, 1, 1]


def test_a_result_is_shown_as_the_decision_on_it_names_it() -> None:
    found = show(result("a", 20), 10, FeedbackSettings(explore=0.5, blind=0))
    assert not found.blind
    assert [tag.rank for tag in found.tags] == list(range(1, 11))
    assert [tag.policy for tag in found.tags] == ["top"] * 5 + ["explore"] * 5
    last = found.tags[-1]
    assert (last.score, last.stage, last.propensity) == (
        20 - int(last.tag[1:]),
        "recall",
        pytest.approx(5 / 15, abs=0.2),
    )


def test_no_place_is_a_bug() -> None:
    with pytest.raises(ValueError, match="0 slots"):
        show(result("a", 3), 0, FeedbackSettings())


def test_a_decision_carries_what_the_judge_said_of_all_tags_and_their_scores_before_it() -> None:
    one = result("content-1", 6)
    assert show(one, 2, FeedbackSettings()).judged == ()
    said = {"t0": (0.9, 0.7), "t1": (0.6, 0.5), "t4": (0.2, 0.3)}

    def judged(tag: ScoredTag) -> ScoredTag:
        if tag.id in said:
            probability, before = said[tag.id]
            evidence = Evidence(scores={"judge": probability}, unjudged=before)
        else:
            evidence = Evidence(decided=tag.id == "t5")
        return tag.model_copy(update={"stage": "judge", "evidence": evidence})

    fused = one.model_copy(update={"tags": tuple(judged(tag) for tag in one.tags)})
    # The others' scores are probabilities where the judge's joined: not those of the stages before.
    assert show(fused, 2, FeedbackSettings()).judged == (
        JudgedTag(tag="t0", score=0.7, judge=0.9),
        JudgedTag(tag="t1", score=0.5, judge=0.6),
        JudgedTag(tag="t4", score=0.3, judge=0.2),
    )
    # Where its answer changed nothing, every score is theirs.
    first = one.tags[0].model_copy(update={"evidence": Evidence(scores={"judge": 0.4})})
    control = one.model_copy(update={"tags": (first, *one.tags[1:])})
    assert [(tag.tag, tag.score, tag.judge) for tag in show(control, 2, FeedbackSettings()).judged] == [
        ("t0", 6.0, 0.4),
        *((f"t{number}", 6.0 - number, None) for number in range(1, 6)),
    ]
