"""Decisive contents skip the judge, and the quality guarantee holds."""

import numpy as np
import pytest

from tagbus.stream.llm.worth import cascade
from tagbus.stream.llm.worth.cascade import ALWAYS, for_quality, for_share, is_control, lead, skips
from tagbus.stream.logistic import Flags, Floats

TARGET = 0.95
SAMPLE = 2000


def population(contents: int = 20_000) -> tuple[Floats, Flags]:
    """The smaller the lead of the best candidate, the likelier the judge changes it."""
    rng = np.random.default_rng(1)
    leads = rng.exponential(1.5, contents)
    return leads, rng.random(contents) < 0.5 * np.exp(-leads)


def kept(leads: Floats, changed: Flags, margin: float) -> float:
    """The share of contents with the judge's best tag."""
    return 1 - float((changed & (leads >= margin)).mean())


def test_the_promise_is_kept_in_95_of_100_samples_at_little_more_than_the_least_cost() -> None:
    leads, changed = population()
    order = np.argsort(leads)
    # With full knowledge, the least share that meets the target is sent.
    oracle = next(sent for sent in range(len(order)) if changed[order[sent:]].mean() * (1 - sent / len(order)) <= 0.05)
    rng = np.random.default_rng(2)
    met, sent = 0, []
    for _ in range(1000):
        sample = rng.choice(len(leads), SAMPLE, replace=False)
        band = for_quality(leads[sample], changed[sample], TARGET, 0.05)
        met += kept(leads, changed, band.margin) >= TARGET
        sent.append(float((leads < band.margin).mean()))
    assert met >= 930
    assert np.mean(sent) <= 1.3 * oracle / len(leads)


def test_a_sample_that_is_too_small_promises_nothing_so_all_are_sent() -> None:
    leads, changed = population(40)
    assert for_quality(leads, changed, TARGET).margin == ALWAYS
    assert not skips(ALWAYS, lead(np.array([0.9999, 0.0])))


def test_where_the_judge_changes_nothing_no_content_is_sent() -> None:
    leads, _ = population(1000)
    assert for_quality(leads, np.zeros(1000, np.bool_), TARGET).share == 0


def test_contents_that_lead_equally_are_skipped_or_sent_together() -> None:
    leads = np.repeat([0.0, 1.0, 2.0], 500)
    changed = np.concatenate((np.arange(500) % 2 == 0, np.arange(500) % 10 == 0, np.zeros(500, np.bool_)))
    assert for_quality(leads, changed, TARGET).margin == 1.0
    assert for_quality(leads, changed, 0.97).margin == 2.0


def test_a_cost_says_what_share_is_sent() -> None:
    leads, _ = population()
    band = for_share(leads, 0.3)
    assert band.share == pytest.approx(0.3, abs=0.001)
    assert for_share(leads, 1.0).share == 1.0
    assert for_share(leads, 0.0).share == 0.0


def test_the_lead_is_the_distance_of_the_best_two_in_log_odds() -> None:
    assert lead(np.array([0.2, 0.5, 0.8])) == pytest.approx(np.log(4))
    assert lead(np.array([])) == 0
    assert lead(np.array([0.5])) == pytest.approx(-cascade.logit(np.array([0.0]))[0])


def test_without_a_margin_every_content_is_sent() -> None:
    assert not skips(None, 9.0)
    assert skips(1.0, 1.0)
    assert not skips(1.0, 0.9)


def test_the_control_share_is_the_same_contents_everywhere() -> None:
    ids = [f"content-{number}" for number in range(20_000)]
    control = [one for one in ids if is_control(one, 0.05)]
    assert len(control) == pytest.approx(1000, rel=0.1)
    assert set(control) <= {one for one in ids if is_control(one, 0.1)}
    assert not any(is_control(one, 0.0) for one in ids)
    assert is_control("\ud800", 1.0)
