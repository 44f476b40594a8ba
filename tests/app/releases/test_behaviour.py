"""From where on a release misbehaves."""

import numpy as np
import pytest

from tagbus.stream.app.releases.behaviour import Limits, ReleaseBehaviour

RNG = np.random.default_rng(0)


def seen(failed: int = 0, without_tags: int = 0, confidences: int = 500, shift: float = 0.0) -> ReleaseBehaviour:
    drawn = RNG.beta(2 + shift, 2, confidences)
    return ReleaseBehaviour(failed, without_tags, drawn.tolist())


def problems(now: ReleaseBehaviour, expected: ReleaseBehaviour, **limits: float) -> list[str]:
    return list(now.problems(expected, Limits(**limits)))


def test_a_release_that_does_as_it_did_in_shadow_has_none() -> None:
    assert problems(seen(2, 3), seen(2, 3)) == []


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (seen(failed=20), "3.8% of 520 contents became dead letters, at most 2.0% may"),
        (seen(without_tags=60), "10.7% of 560 contents got no tag, at most 5.0% may"),
        (seen(shift=6.0), "confidences drifted by "),
    ],
)
def test_each_limit_is_one_problem(now: ReleaseBehaviour, words: str) -> None:
    (found,) = problems(now, seen())
    assert found.startswith(words)


def test_what_was_seen_in_shadow_is_no_problem() -> None:
    assert problems(seen(failed=20, without_tags=60), seen(failed=20, without_tags=60)) == []


def test_few_contents_drift_by_chance() -> None:
    drifts = [seen(confidences=60).drift_from(seen(confidences=60)) for _ in range(50)]
    assert max(drifts) > 0.25
    assert not any(problems(seen(confidences=60), seen(confidences=60)) for _ in range(50))


def test_without_contents_there_is_no_problem() -> None:
    assert problems(ReleaseBehaviour(), ReleaseBehaviour()) == []
    assert ReleaseBehaviour().drift_from(seen()) == 0.0
