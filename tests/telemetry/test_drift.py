"""Drift: the index, the windows, and their files."""

import json
import random
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tagbus.stream.config import DriftSettings
from tagbus.stream.errors import UserError
from tagbus.stream.telemetry.drift import SIGNALS, Drift, Tagged, checksums, made, psi

WORDS = [f"word{number}" for number in range(3_000)]


def tagged(chance: random.Random, *, language: str = "en", words: list[str] = WORDS, least: float = 0.3) -> Tagged:
    """A content whose words follow Zipf's law, roughly."""
    found = [words[min(len(words) - 1, int(chance.paretovariate(0.5)))] for _ in range(12)]
    return Tagged(least + (1 - least) * chance.random(), chance.randint(1, 6), language, checksums(found))


def shown(signal: str) -> float:
    return REGISTRY.get_sample_value("tagbus_drift_psi", {"signal": signal}) or 0.0


def settings(**values: object) -> DriftSettings:
    return DriftSettings.model_validate({"reference": 400, "window": 200, "contents_per_second": 1e9, **values})


def test_the_index_is_that_of_its_definition() -> None:
    # Given shares of 1/4 and 3/4, and of 1/2 and 1/2: (0.25 - 0.5) ln(0.5) + (0.75 - 0.5) ln(1.5)
    assert psi([25_000, 75_000], [50_000, 50_000]) == pytest.approx(0.2747, abs=0.001)
    assert psi([10, 20], [100, 200]) < 0.001


def test_an_empty_window_has_no_index() -> None:
    assert psi([0, 0], [5, 5]) == 0
    assert psi([5, 5], [0, 0]) == 0


def test_a_bin_that_was_empty_gives_a_large_index_and_not_an_infinite_one() -> None:
    assert 1 < psi([0, 1000], [1000, 0]) < 100


def test_what_stays_as_it_is_does_not_drift() -> None:
    chance = random.Random(1)  # noqa: S311
    drift = Drift(settings())
    drift.observe("r", [tagged(chance) for _ in range(5_000)])
    assert all(shown(signal) < 0.2 for signal in SIGNALS), {signal: shown(signal) for signal in SIGNALS}


def test_another_language_drifts_by_its_words_also_where_no_language_is_named() -> None:
    chance = random.Random(2)  # noqa: S311
    drift = Drift(settings())
    drift.observe("r", [tagged(chance) for _ in range(1_000)])
    drift.observe("r", [tagged(chance, words=[f"sana{number}" for number in range(3_000)]) for _ in range(300)])
    assert shown("unknown_words") > 1
    assert shown("confidence") < 0.25
    drift.observe("r", [tagged(chance, language="fi") for _ in range(300)])
    assert shown("language") > 1


def test_contents_without_tags_drift() -> None:
    chance = random.Random(3)  # noqa: S311
    drift = Drift(settings())
    drift.observe("r", [tagged(chance) for _ in range(600)])
    drift.observe("r", [Tagged(None, 0, "en", checksums(["word1"])) for _ in range(200)])
    assert shown("abstention") > 0.25
    assert shown("tags") > 0.25


def test_a_part_of_a_window_has_no_index() -> None:
    chance = random.Random(4)  # noqa: S311
    drift = Drift(settings())
    drift.observe("other", [tagged(chance) for _ in range(400)])
    drift.observe("other", [tagged(chance, language="fi") for _ in range(199)])
    assert shown("language") == 0


def test_another_release_begins_a_new_reference() -> None:
    chance = random.Random(5)  # noqa: S311
    drift = Drift(settings())
    drift.observe("old", [tagged(chance) for _ in range(700)])
    drift.observe("new", [tagged(chance, least=0.9) for _ in range(700)])
    assert shown("confidence") < 0.2


def test_a_reference_that_is_kept_outlives_the_process_and_holds_no_text(tmp_path: Path) -> None:
    chance, file = random.Random(6), tmp_path / "reference.json"  # noqa: S311
    Drift(settings(file=file)).observe("r", [tagged(chance) for _ in range(400)])
    assert "word" not in file.read_text().replace('"words"', "").replace("unknown_words", "")
    # When a worker starts after the shift
    Drift(settings(file=file)).observe("r", [tagged(chance, language="fi") for _ in range(300)])
    assert shown("language") > 1


def test_a_file_that_is_no_reference_is_named(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    file.write_text("{}")
    with pytest.raises(UserError, match=r"TAGBUS_DRIFT__FILE=.*it has no reference window; remove it"):
        Drift(settings(file=file))


def test_a_file_that_cannot_be_written_does_not_end_the_worker(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    drift = Drift(settings(file=tmp_path / "missing" / "reference.json"))
    drift.observe("r", [tagged(chance) for _ in range(500)])


def test_so_many_contents_are_looked_at_as_the_setting_says_and_evenly() -> None:
    now = 0.0
    drift = Drift(settings(contents_per_second=10), clock=lambda: now)
    assert list(drift.wanted(1_000)) == []
    now = 1.0
    assert list(drift.wanted(1_000)) == list(range(0, 1_000, 100))
    now = 1.5
    assert list(drift.wanted(4)) == [0, 1, 2, 3]


def test_words_that_the_reference_remembers_are_bounded() -> None:
    contents = [Tagged(0.5, 1, "en", checksums(f"{one}-{number}" for number in range(256))) for one in range(2_000)]
    assert len(made("r", contents).words) <= 200_000


@pytest.mark.parametrize("signals", [{}, {"language": {"names": ["en"], "counts": [1]}}])
def test_a_reference_that_lacks_signals_is_refused_at_the_start(signals: object, tmp_path: Path) -> None:
    """And not at the first sampled content, which would end the worker."""
    file = tmp_path / "drift.json"
    file.write_text(json.dumps({"release": "r", "signals": signals, "words": []}), encoding="utf-8")
    with pytest.raises(UserError, match=r"drift\.json.*remove it"):
        Drift(settings(file=file))
