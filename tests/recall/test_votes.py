"""The neighbours' votes: all machine decisions on a tag together weigh less than one person's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.recall.pool import Ballots, Pool
from tagbus.stream.recall.votes import count_votes

PERSON, OTHER, MACHINE = 0, 1, 2
near = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20)


def pool(people: list[float], machine: list[float]) -> Pool:
    """One content: people who all take another tag but the first, who takes PERSON; machine decisions take MACHINE."""
    voters = [(similarity, False, PERSON if not n else OTHER) for n, similarity in enumerate(people)]
    ordered = sorted([*voters, *((similarity, True, MACHINE) for similarity in machine)], key=lambda one: -one[0])
    ballots = Ballots(
        np.zeros(len(ordered), np.int64),
        np.array([similarity for similarity, _, _ in ordered], np.float32),
        np.array([by_machine for _, by_machine, _ in ordered], np.bool_),
        np.arange(len(ordered)),
        np.array([tag for *_, tag in ordered], np.int64),
    )
    return Pool(["text"], 3, {}, ballots)


@settings(max_examples=60)
@given(people=near, machine=near)
def test_all_machine_votes_on_a_tag_weigh_less_than_one_persons(people: list[float], machine: list[float]) -> None:
    votes = count_votes(pool(people, machine))
    for shares in votes.shares:
        by_tag = dict(zip(votes.keys.tolist(), shares.tolist(), strict=True))
        assert by_tag[MACHINE] < by_tag[PERSON]


def test_machine_voters_count_as_one_at_most_where_people_vote() -> None:
    votes = count_votes(pool([0.5, 0.5, 0.5], [0.5] * 20))
    assert dict(zip(votes.keys.tolist(), votes.voters.tolist(), strict=True)) == {PERSON: 1, OTHER: 2, MACHINE: 1}


def test_machine_votes_count_in_full_where_no_person_votes() -> None:
    votes = count_votes(pool([], [0.9, 0.5]))
    assert votes.shares[0].tolist() == [pytest.approx(1.0)]
    assert votes.voters.tolist() == [2]
