"""Features of candidates, against a reading of their definitions that goes candidate by candidate."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.rank.candidates import Facts
from tagbus.stream.rank.features.base import Limits, Tables, columns, draw, table
from tagbus.stream.recall.pool import Ballots, Ints, Listed, Pool
from tagbus.stream.recall.votes import PART, TAUS, count_votes

WIDTH = 9
LISTS = ("names", "heads")
OPEN = Limits(100, 100, 100)


def listed(found: list[dict[int, float]]) -> Listed:
    ordered = [sorted(one.items(), key=lambda pair: (-pair[1], pair[0])) for one in found]
    flat = [(row, tag, score) for row, one in enumerate(ordered) for tag, score in one]
    rows, tags, scores = zip(*flat, strict=True) if flat else ((), (), ())
    return Listed(np.array(rows, np.int64), np.array(tags, np.int64), np.array(scores, np.float32))


Neighbours = list[tuple[float, bool, list[int]]]


def ballots(near: list[Neighbours]) -> Ballots:
    ordered = [(row, *one) for row, each in enumerate(near) for one in sorted(each, key=lambda hit: -hit[0])]
    return Ballots(
        np.array([row for row, *_ in ordered], np.int64),
        np.array([similarity for _, similarity, _, _ in ordered], np.float32),
        np.array([machine for _, _, machine, _ in ordered], np.bool_),
        np.array([number for number, one in enumerate(ordered) for _ in one[3]], np.int64),
        np.array([tag for one in ordered for tag in one[3]], np.int64),
    )


def facts(child: Ints | None = None, parent: Ints | None = None) -> Facts:
    none = np.zeros(0, np.int64)
    return Facts(
        np.arange(WIDTH), 10 + np.arange(WIDTH), none if child is None else child, none if parent is None else parent
    )


def tables(together: dict[tuple[int, int], int], counts: list[int]) -> Tables:
    pairs = sorted((a * len(counts) + b, times) for (x, y), times in together.items() for a, b in ((x, y), (y, x)))
    return Tables(
        np.array(counts, np.int64),
        np.array([key for key, _ in pairs], np.int64),
        np.array([times for _, times in pairs], np.int64),
        100,
    )


TABLES = tables({(0, 1): 4, (1, 2): 2}, [10, 8, 5, 1, 0, 0])

tags = st.integers(0, WIDTH - 1)
lists = st.dictionaries(tags, st.floats(0, 1, width=32), max_size=5)
neighbours = st.lists(
    st.tuples(st.floats(-1, 1, width=32), st.booleans(), st.lists(tags, max_size=3, unique=True)), max_size=6
)


@settings(max_examples=60)
@given(contents=st.lists(st.tuples(lists, lists, neighbours), min_size=1, max_size=4))
def test_features_equal_their_definitions(
    contents: list[tuple[dict[int, float], dict[int, float], Neighbours]],
) -> None:
    names, heads, near = map(list, zip(*contents, strict=True))
    pool = Pool(
        [" ".join(["text"] * words) for words in range(1, len(contents) + 1)],
        WIDTH,
        {"names": listed(names), "heads": listed(heads)},
        ballots(near),
    )

    drawn = draw(pool, OPEN)
    found = table(pool, drawn, facts(), TABLES, LISTS)

    got = [dict(zip(columns(LISTS), row, strict=True)) for row in found.tolist()]
    expected: dict[int, set[int]] = {row: {*names[row], *heads[row]} for row in range(len(contents))}
    for row, each in enumerate(near):
        expected[row] |= {tag for _, _, carried in each for tag in carried}
    assert list(zip(drawn.rows.tolist(), drawn.tags.tolist(), strict=True)) == [
        (row, tag) for row in expected for tag in sorted(expected[row])
    ]
    for row, tag, features in zip(drawn.rows.tolist(), drawn.tags.tolist(), got, strict=True):
        check_list(features, "names", names[row], tag)
        check_list(features, "heads", heads[row], tag)
        check_votes(features, near[row], tag)
        assert features["prior"] == pytest.approx(math.log1p(TABLES.counts[tag] if tag < 6 else 0))
        assert features["letters"] == 10 + tag
        assert features["words"] == row + 1


def check_list(features: dict[str, float], name: str, found: dict[int, float], tag: int) -> None:
    score, rank, margin = (features[f"{name}_{what}"] for what in ("score", "rank", "margin"))
    if tag not in found:
        assert all(map(math.isnan, (score, rank, margin)))
        return
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    assert score == pytest.approx(found[tag])
    assert rank == [number for number, _ in ordered].index(tag)
    assert margin == pytest.approx(found[tag] - ordered[0][1], abs=1e-6)


def check_votes(features: dict[str, float], near: Neighbours, tag: int) -> None:
    ordered = sorted(near, key=lambda hit: -hit[0])
    for column, tau in zip(("votes", "votes_sharp"), TAUS, strict=True):
        weights = [math.exp((similarity - ordered[0][0]) / tau) for similarity, _, _ in ordered]
        by_machine: dict[int, float] = defaultdict(float)
        for weight, (_, machine, carried) in zip(weights, ordered, strict=True):
            for each in carried if machine else ():
                by_machine[each] += weight
        people = [
            weight for weight, (_, machine, carried) in zip(weights, ordered, strict=True) if carried and not machine
        ]
        cap = min(1, PART * min(people) / max(by_machine.values())) if people and by_machine else 1
        weights = [
            weight * cap if machine else weight for weight, (_, machine, _) in zip(weights, ordered, strict=True)
        ]
        voted: dict[int, float] = defaultdict(float)
        for weight, (_, _, carried) in zip(weights, ordered, strict=True):
            for each in carried:
                voted[each] += weight
        total = sum(weights) or 1
        assert features[column] == pytest.approx(voted[tag] / total, rel=1e-3, abs=1e-5)
    carriers = [number for number, (_, _, carried) in enumerate(ordered) if tag in carried]
    people_voted = any(carried and not machine for _, machine, carried in ordered)
    by_people = [number for number in carriers if not ordered[number][1]]
    assert features["voters"] == (max(len(by_people), min(1, len(carriers))) if people_voted else len(carriers))
    if carriers:
        assert features["nearest_voter"] == pytest.approx(ordered[carriers[0]][0])
    else:
        assert math.isnan(features["nearest_voter"])
        assert math.isnan(features["nearest_voter_rank"])


def pool_of(heads: dict[int, float], names: dict[int, float] | None = None) -> Pool:
    return Pool(["text"], WIDTH, {"names": listed([names or {}]), "heads": listed([heads])}, ballots([[]]))


def test_co_occurrence_is_with_the_five_best_of_the_first_guess() -> None:
    pool = pool_of({0: 0.9, 1: 0.8, 2: 0.7})

    found = table(pool, draw(pool, OPEN), facts(), TABLES, LISTS)

    by_tag = {tag: dict(zip(columns(LISTS), row, strict=True)) for tag, row in enumerate(found.tolist())}
    # Tag 1 was right 4 times with tag 0, which was right 10 times, and twice with tag 2, which was right 5 times.
    assert by_tag[1]["given_max"] == pytest.approx(0.4)
    assert by_tag[1]["given_mean"] == pytest.approx((4 / 10 + 2 / 5) / 2)
    assert by_tag[1]["lift_max"] == pytest.approx(math.log1p(0.4 * 100 / 8))
    assert by_tag[0]["given_mean"] == pytest.approx((4 / 8 + 0) / 2)


def test_parents_and_children_among_the_candidates_are_counted() -> None:
    pool = pool_of({0: 0.9, 1: 0.8, 2: 0.7})
    family = facts(child=np.array([1, 2, 1]), parent=np.array([0, 0, WIDTH + 3]))

    found = table(pool, draw(pool, OPEN), family, TABLES, LISTS)

    by_tag = [dict(zip(columns(LISTS), row, strict=True)) for row in found.tolist()]
    assert [one["parents"] for one in by_tag] == [0, 1, 1]
    assert [one["children"] for one in by_tag] == [2, 0, 0]


def test_limits_bound_each_list_and_the_scored_candidates() -> None:
    pool = pool_of({tag: 1 - tag / 10 for tag in range(5)}, {tag: tag / 10 for tag in range(5, 9)})

    assert draw(pool, Limits(2, 2, 100)).tags.tolist() == [0, 1, 7, 8]
    # The first of the names is worth half of the first of the heads, as much as the heads' eleventh.
    assert draw(pool, Limits(5, 5, 6)).tags.tolist() == [0, 1, 2, 3, 4, 8]
    # Three names are drawn, regardless of other lists.
    assert draw(pool, Limits(5, 5, 1, sure=3)).tags.tolist() == [0, 6, 7, 8]


def test_an_empty_pool_has_no_candidates() -> None:
    pool = Pool([], 0, {"names": listed([]), "heads": listed([])}, ballots([]))

    drawn = draw(pool, OPEN)

    assert table(pool, drawn, facts(), TABLES, LISTS).shape == (0, len(columns(LISTS)))
    assert not len(count_votes(pool).keys)


def test_a_tag_that_the_tables_do_not_know_has_no_prior_and_goes_with_none() -> None:
    assert TABLES.count(np.array([0, 5, 6, -1])).tolist() == [10, 0, 0, 0]
    assert TABLES.with_(np.array([0, 6, -1, 0]), np.array([1, 1, 1, 6])).tolist() == [4, 0, 0, 0]
