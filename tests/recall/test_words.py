"""The bag of words and bigrams: the terms of a text, their weights, and the cost of hostile text."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.errors import UserError
from tagbus.stream.recall import words
from tagbus.stream.recall.words import Vocabulary, terms_of

TEXTS = ("forest fires", "forest soil", "soil and forest fires", "zebra")
KNOWN = Vocabulary.learn(TEXTS, words=2, bigrams=2)


def named(vocabulary: Vocabulary, text: str) -> dict[str, float]:
    bags = vocabulary.bags([text])
    assert vocabulary.terms is not None
    return {
        vocabulary.terms[number]: weight
        for number, weight in zip(bags.terms.tolist(), bags.weights.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Forest FIRES", ["forest", "fires", "forest fires"]),
        ("a b", []),
        ("", []),
        ("Straße", ["strasse"]),
        ("ﬁre", ["fire"]),
        ("Лесные пожары", ["лесные", "пожары", "лесные пожары"]),
        ("森林火災", ["森", "林", "火", "災", "森 林", "林 火", "火 災"]),
        ("पुस्तक", ["पुस्तक"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("ปลา", ["ป", "ล", "า", "ป ล", "ล า"]),
        ("C-14, 1917", ["14", "1917", "14 1917"]),
    ],
)
def test_terms_are_words_and_bigrams_of_every_script(text: str, terms: list[str]) -> None:
    assert list(terms_of(text)) == terms


def test_a_vocabulary_has_frequent_terms_most_frequent_first() -> None:
    assert KNOWN.terms == ("forest", "fires", "forest fires", "soil")
    assert KNOWN.frequencies == (3, 2, 2, 2)
    assert KNOWN.texts == len(TEXTS)
    assert Vocabulary.learn(TEXTS, 2, 2, most=1).terms == ("forest",)


def test_a_weight_is_logarithmic_frequency_times_rarity_over_the_length_of_the_bag() -> None:
    found = named(KNOWN, "soil soil forest unknown")

    soil = (1 + math.log(2)) * (math.log(5 / 3) + 1)
    forest = math.log(5 / 4) + 1
    length = math.hypot(soil, forest)
    assert found == pytest.approx({"soil": soil / length, "forest": forest / length})


@given(st.lists(st.text()))
def test_each_bag_has_length_one_or_no_term(texts: list[str]) -> None:
    for vocabulary in (KNOWN, KNOWN.hashed(7)):
        bags = vocabulary.bags(texts)
        assert len(bags.starts) == len(texts)
        terms, weights = bags.padded(words.TERMS)
        assert terms.shape == weights.shape == (len(texts), words.TERMS)
        lengths = np.linalg.norm(weights, axis=1)
        assert np.all(np.isclose(lengths, 1, atol=1e-5) | (bags.lengths == 0))
        assert terms.max(initial=0) < len(vocabulary.frequencies)


def test_rows_of_bags_are_those_texts_alone() -> None:
    bags = KNOWN.bags(["forest fires", "", "soil"])

    some = bags.rows(np.array([2, 1, 0, 2]))

    again = KNOWN.bags(["soil", "", "forest fires", "soil"])
    assert some.terms.tolist() == again.terms.tolist()
    assert some.starts.tolist() == again.starts.tolist()
    assert some.weights.tolist() == again.weights.tolist()


def test_a_huge_text_is_read_to_a_bound() -> None:
    huge = " ".join(f"word{number}" for number in range(100_000))

    assert sum(1 for _ in terms_of(huge)) < 2 * words.WORDS
    many = Vocabulary.learn([huge, huge], 1, 1)
    assert many.bags([huge]).lengths.tolist() == [words.TERMS]
    assert list(terms_of("x" * 5_000)) == []


def test_counts_are_bounded_while_a_vocabulary_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "COUNTS", 10)

    found = Vocabulary.learn([f"common w{number}" for number in range(100)], 2, 2)

    assert found.terms == ("common",)


def test_hashed_terms_keep_their_frequencies_and_need_no_names() -> None:
    hashed = KNOWN.hashed(1000)

    assert hashed.terms is None
    assert sum(hashed.frequencies) == sum(KNOWN.frequencies)
    bag = hashed.bags(["forest"])
    assert [hashed.frequencies[number] for number in bag.terms] == [3]


@pytest.mark.parametrize("vocabulary", [KNOWN, KNOWN.hashed(5), KNOWN.some([3, 0])])
def test_a_vocabulary_is_read_as_it_was_written(vocabulary: Vocabulary) -> None:
    assert Vocabulary.parse("words.json", vocabulary.dump()) == vocabulary


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "words.json: the file"),
        (b'{"texts": 3, "frequencies": [], "terms": []}', "frequencies"),
        (b'{"texts": 3, "frequencies": [1, 2], "terms": ["a"]}', "1 terms and 2 frequencies"),
        (b'{"texts": 3, "frequencies": [4], "terms": null}', "not between 0 and 3"),
        (b'{"texts": 3, "frequencies": ["x"], "terms": null}', "frequencies.0: 'x'"),
    ],
)
def test_any_other_file_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Vocabulary.parse("words.json", content)
