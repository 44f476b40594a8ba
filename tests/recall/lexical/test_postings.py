"""Postings grow, shrink and move, and equal a dictionary."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.recall.lexical.postings import MOST, Postings

# For each row the terms that it has.
Texts = st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=40)


@settings(max_examples=60)
@given(Texts, st.data())
def test_they_hold_added_entries_that_were_not_removed(texts: list[set[int]], data: st.DataObject) -> None:
    postings, expected = Postings(), dict[int, dict[int, int]]()
    for row, terms in enumerate(texts):
        known = sorted(terms)
        postings.add(np.array(known), np.full(len(known), row), np.array([row % 5 + 1] * len(known)))
        for term in known:
            expected.setdefault(term, {})[row] = row % 5 + 1
    for row in data.draw(st.sets(st.integers(0, len(texts) - 1))):
        terms = np.array(sorted(texts[row]))
        empty = postings.remove(terms, row)
        for term in texts[row]:
            del expected[term][row]
        assert sorted(empty) == [term for term in sorted(texts[row]) if not expected[term]]
    for term, entries in expected.items():
        rows, counts = postings.of(term)
        assert dict(zip(rows.tolist(), counts.tolist(), strict=True)) == entries


def test_a_list_that_grows_by_one_at_a_time_takes_twice_its_size_at_most() -> None:
    postings, one = Postings(), np.ones(1, np.int64)
    for row in range(20_000):
        postings.add(one * (row % 7), one * row, one)
    assert len(postings._rows) < 3 * 20_000 + 10_000
    assert sorted(postings.of(3)[0].tolist()) == list(range(3, 20_000, 7))


def test_a_count_is_bounded() -> None:
    postings = Postings()
    postings.add(np.array([0]), np.array([0]), np.array([10**9]))
    assert postings.of(0)[1].tolist() == [MOST]
