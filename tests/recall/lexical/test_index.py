"""BM25 over texts that are added, changed and removed: as if the index had been built from the current ones."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.memory import TagNumbers
from tagbus.stream.recall.lexical import index as module
from tagbus.stream.recall.lexical.index import K1, B, Text, TextIndex

NONE = np.zeros(0, np.int64)
EVERYBODY = frozenset[str]()


def text(key: str, words: str, *scopes: str, tags: tuple[int, ...] = ()) -> Text:
    return Text(key, words, frozenset(scopes), np.array(tags, np.int64))


def built(*texts: Text) -> TextIndex:
    made = TextIndex(str.split, TagNumbers())
    made.put(texts)
    return made


def keys(index: TextIndex, query: str, limit: int = 10, *scopes: str) -> list[str]:
    found: list[str] = index.search([query], limit, [frozenset(scopes)])[0].keys.tolist()
    return found


def expected(texts: dict[str, str], query: str) -> dict[str, float]:
    """BM25 by its definition, divided by the total inverse frequency of the query's terms."""
    count, lengths = len(texts), {key: len(words.split()) for key, words in texts.items()}
    mean = sum(lengths.values()) / max(1, count) or 1.0
    frequency = Counter(word for words in texts.values() for word in set(words.split()))
    worth = {term: math.log(1 + (count - frequency[term] + 0.5) / (frequency[term] + 0.5)) for term in query.split()}
    rare = {term for term in worth if 0 < frequency[term] <= module.COMMON * count}
    looked = rare or worth.keys()
    scores = {}
    for key, words in texts.items():
        often = Counter(words.split())
        weight = K1 * (1 - B + B * lengths[key] / mean)
        score = sum(worth[term] * often[term] * (K1 + 1) / (often[term] + weight) for term in looked if often[term])
        if score:
            scores[key] = score / sum(worth.values())
    return scores


@settings(max_examples=120)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("abcdefghijklmnopqrst"),
            st.none() | st.lists(st.sampled_from("uvwxyz"), max_size=6).map(" ".join),
            st.sets(st.sampled_from(["ann", "bob"])),
        ),
        max_size=40,
    ),
    query=st.lists(st.sampled_from("uvwxyz!"), min_size=1, max_size=5).map(" ".join),
    scopes=st.none() | st.sets(st.sampled_from(["ann", "bob"])),
    common=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_scores_are_those_of_what_a_content_sees(steps: Any, query: str, scopes: Any, common: float) -> None:
    """After any additions and removals, in any order, frequencies and lengths are those of the visible texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMMON", common)
        made, there = TextIndex(str.split, TagNumbers()), dict[str, tuple[str, set[str]]]()
        for key, words, own in steps:
            if words is None:
                made.drop([key])
                there.pop(key, None)
            else:
                made.put([text(key, words, *own)])
                there[key] = words, own
        seen = {key: words for key, (words, own) in there.items() if scopes is None or not own or own & scopes}
        found = made.search([query], 100, None if scopes is None else [frozenset(scopes)])[0]
        scores = expected(seen, query)
    assert dict(zip(found.keys.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(scores, rel=1e-4)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert len(made) == len(there)


def test_rare_words_count_more_than_common_ones() -> None:
    made = built(text("a", "bees live here"), text("b", "cats live here"), *(text(f"c{n}", "live") for n in range(9)))
    assert keys(made, "live bees", 2)[0] == "a"


def test_equals_come_by_key() -> None:
    made = built(*(text(key, "bees") for key in "dbca"), text("z", "wasps"))
    assert keys(made, "bees", 3) == ["a", "b", "c"]


def test_hits_carry_the_tags_of_their_texts() -> None:
    made = TextIndex(str.split, TagNumbers())
    bees, law = made.numbers.of(["bees", "law"]).tolist()
    made.put([text("a", "hives", tags=(bees, law)), text("b", "sea", tags=(law,)), text("c", "towns")])
    made.put([text("a", "hives", tags=(bees,))])
    hits = made.search(["hives", "sea towns"], 5)
    assert [one.tags.tolist() for one in hits] == [[bees], [law]]


def test_a_withdrawn_text_leaves_no_word() -> None:
    made = built(text("a", "secret words"), text("b", "words"))
    made.drop(["a", "missing"])
    assert keys(made, "secret words") == ["b"]
    assert set(made._words._numbers) == {"words"}
    assert "secret" not in made._words._words
    made.put([text("b", "others")])
    assert set(made._words._numbers) == {"others"}


def test_words_and_rows_that_go_make_room_for_others() -> None:
    """Given a stream of texts of ever new words, of which 50 exist at a time, memory use is that of 50."""
    made = TextIndex(str.split, TagNumbers())
    for number in range(2_000):
        made.put([text(f"k{number}", f"w{number}a w{number}b w{number}c")])
        made.drop([f"k{number - 50}"])
    assert len(made) == 50
    assert len(made._words._words) <= 3 * 52
    assert len(made._keys) <= 52
    assert len(made._postings._rows) < 20_000


def test_an_empty_index_and_a_text_without_words_find_nothing() -> None:
    assert keys(built(), "bees") == []
    assert keys(built(text("a", "bees")), "") == []
    assert keys(built(text("a", "")), "bees") == []


def test_of_a_long_text_the_rarest_terms_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERMS", 3)
    monkeypatch.setattr(module, "ENTRIES", 4)
    assert module._chosen([5, 1, 0, 2, 1, 9], 1_000) == [1, 4, 3]
    assert module._chosen([7], 1_000) == [0]
    assert module._chosen([3, 3, 3], 1_000) == [0]


def test_what_one_tenant_publishes_changes_no_score_of_another() -> None:
    own = [text("a", "bees and hives", "ann"), text("b", "bees", "ann"), text("c", "law", "ann")]
    alone, shared = built(*own), built(*own, *(text(f"x{n}", "bees bees hives", "bob") for n in range(50)))
    found = [index.search(["bees hives"], 5, [frozenset({"ann"})])[0] for index in (alone, shared)]
    assert found[0].keys.tolist() == found[1].keys.tolist() == ["a", "b"]
    assert found[0].scores.tolist() == found[1].scores.tolist()
    assert keys(shared, "bees", 10) == []
