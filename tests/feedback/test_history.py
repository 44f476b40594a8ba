"""The exemplar that follows from the decisions on a content."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import Untaggable
from tagbus.stream.feedback.history import History, KeptText, after, exemplar, keep
from tests.feedback.parts import NOON, decision, undo

LIMIT = 1_000_000
LOGS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]),
        st.sampled_from(["review", "adjudicate", "bulk"]),
        st.permutations(["t1", "t2", "t3", "t4"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from(["", "Bees", "Honey"]),
        st.lists(st.integers(0, 7), max_size=2),
    ),
    max_size=8,
)


def log(rows: Iterable[tuple[object, ...]]) -> list[Decision]:
    """Rows of LOGS as decisions, of which some take back earlier ones."""
    found = []
    for number, (who, mode, tags, accepted, rejected, replaces, title, gone) in enumerate(rows):
        assert isinstance(tags, list | tuple)
        fields = {
            "accepted": tuple(tags[:accepted]),
            "rejected": tuple(tags[accepted : accepted + rejected]),
            "replaces": replaces,
            "title": title,
            "supersedes": tuple(f"d{one}" for one in gone if one < number),  # type: ignore[attr-defined]
        }
        found.append(decision(number, str(who), mode, **fields))  # type: ignore[arg-type]
    return found


def joined(*decisions: Decision, limit: int = LIMIT) -> History:
    history = History()
    for one in decisions:
        history = after(history, one, limit)
    return history


def known(*decisions: Decision) -> Exemplar | None:
    return exemplar("a", joined(*decisions))


def sides(*decisions: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = known(*decisions)
    return ((), ()) if found is None else (found.accepted, found.rejected)


def test_a_decision_becomes_an_exemplar_of_people() -> None:
    found = known(decision(1, text="Hives.", accepted=("t1",), rejected=("t2",), unsure=("t3",), scopes=("news",)))
    assert found == Exemplar(
        id="a",
        title="Bees",
        text="Hives.",
        accepted=("t1",),
        rejected=("t2",),
        time=NOON.replace(second=1),
        scopes=("news",),
    )


def test_what_is_not_mentioned_is_not_rejected() -> None:
    assert sides(decision(1, accepted=("t1",)), decision(2, accepted=("t2",))) == (("t1", "t2"), ())


def test_the_latest_word_of_a_person_on_a_tag_counts() -> None:
    assert sides(decision(1, accepted=("t1", "t2")), decision(2, rejected=("t1",))) == (("t2",), ("t1",))
    assert sides(decision(1, accepted=("t1",)), decision(2, unsure=("t1",))) == ((), ())


def test_a_replacing_decision_is_all_that_the_person_says() -> None:
    one, other = decision(1, accepted=("t1",)), decision(2, "bob", accepted=("t2",))
    assert sides(one, other, decision(3, accepted=("t3",), replaces=True)) == (("t2", "t3"), ())
    assert sides(one, other, decision(3, replaces=True)) == (("t2",), ())


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ("a", (("t",), ())),
        ("r", ((), ("t",))),
        ("aar", (("t",), ())),
        ("arr", ((), ("t",))),
        ("ar", ((), ())),
        ("uua", (("t",), ())),
        ("uu", ((), ())),
    ],
)
def test_the_majority_of_people_decides_and_a_tie_is_open(votes: str, verdict: object) -> None:
    side = {"a": "accepted", "r": "rejected", "u": "unsure"}
    assert sides(*(decision(n, f"p{n}", **{side[vote]: ("t",)}) for n, vote in enumerate(votes))) == verdict


def test_an_adjudication_outweighs_the_majority_and_the_latest_one_counts() -> None:
    many = [decision(n, f"p{n}", accepted=("t",)) for n in range(3)]
    first = decision(4, "judge", "adjudicate", rejected=("t",))
    assert sides(first, *many) == ((), ("t",))
    assert sides(*many, first, decision(5, "chief", "adjudicate", accepted=("t",))) == (("t",), ())
    # One that leaves it open leaves it open.
    assert sides(*many, decision(5, "chief", "adjudicate", unsure=("t",))) == ((), ())


def test_an_undo_gives_back_the_state_before_and_an_undo_of_it_the_one_after() -> None:
    one, other = decision(1, accepted=("t1",)), decision(2, "bob", rejected=("t1",), title="Honey")
    assert known(one, other, undo(3, 2)) == known(one)
    assert known(one, undo(2, 1)) is None
    assert known(one, other, undo(3, 2), undo(4, 3)) == known(one, other)


def test_a_decision_may_replace_another_one() -> None:
    assert sides(decision(1, accepted=("t1",)), decision(2, accepted=("t2",), supersedes=("d1",))) == (("t2",), ())


def test_one_that_replaces_another_without_a_text_keeps_its_text() -> None:
    """A correction would otherwise wait for the text of the decision that it corrects, and the exemplar be gone."""
    first = decision(1, accepted=("t1",), scopes=("s",))
    second = decision(2, title="", accepted=("t2",), supersedes=("d1",))
    third = decision(3, title="", rejected=("t2",), supersedes=("d3", "d1", "d2"))
    for found, sides_ in ((known(first, second), (("t2",), ())), (known(first, second, third), ((), ("t2",)))):
        assert found is not None
        assert (found.title, found.scopes) == ("Bees", ("s",))
        assert (found.accepted, found.rejected) == sides_
    assert known(first, second, undo(3, 2)) == known(first)


def test_a_long_chain_of_corrections_keeps_the_text() -> None:
    chain = [
        decision(number, title="", accepted=(f"t{number}",), supersedes=(f"d{number - 1}",))
        for number in range(2, 2_000)
    ]
    decisions = tuple(keep(one, 0 if one.decision == "d1" else None) for one in (decision(1), *chain))
    found = exemplar("a", History(texts=(KeptText(title="Bees"),), decisions=decisions))
    assert found is not None
    assert found.title == "Bees"


def test_an_undo_takes_its_decision_s_text_back_too() -> None:
    bare = decision(1, "bob", title="", accepted=("t1",))
    assert joined(bare, decision(2, accepted=("t2",)), undo(3, 2)).waits


def test_the_latest_text_counts() -> None:
    found = known(decision(1, accepted=("t1",)), decision(2, "bob", title="", text="Hives."), decision(3, title=""))
    assert found is not None
    assert (found.title, found.text) == ("", "Hives.")


def test_without_a_text_it_waits_until_one_comes() -> None:
    bare = decision(1, title="", accepted=("t1",))
    assert joined(bare).waits
    assert known(bare) is None
    late = decision(2, "archive", "api")
    assert not joined(bare, late).waits
    assert sides(bare, late) == (("t1",), ())


def test_what_is_left_open_does_not_wait() -> None:
    assert not joined(decision(1, title="", unsure=("t1",))).waits


def test_above_the_limit_the_oldest_text_is_forgotten_but_the_one_in_force() -> None:
    texts = [decision(n, f"p{n}", title=f"{n}" * 400, accepted=("t1",)) for n in range(5)]
    history = joined(*texts, limit=2000)
    assert len(history.write()) <= 2000
    assert [text.title[0] for text in history.texts][-1] == "4"
    assert len(history.decisions) == 5
    both, first_again = joined(*texts[:2]), texts[0].model_copy(update={"decision": "d9"})
    again = after(both, first_again, len(both.write()))
    assert [text.title[0] for text in again.texts] == ["0"]
    kept = exemplar("a", again)
    assert kept is not None
    assert kept.title == texts[0].title


def test_more_decisions_than_a_record_holds_are_refused_one_by_one() -> None:
    history = joined(decision(1, accepted=("t1",)))
    with pytest.raises(Untaggable, match=r"id: decisions of \d+ bytes on one content is wrong, expected at most"):
        after(history, decision(2, "bob", accepted=("t1",)), len(history.write()) + 10)


@given(LOGS, st.data())
def test_it_is_a_function_of_the_log_in_which_each_decision_counts_once(
    rows: list[tuple[object, ...]], data: st.DataObject
) -> None:
    decisions = log(rows)
    history = joined(*decisions)
    # Each is read back from the topic, and some come twice.
    again = History()
    for number, one in enumerate(decisions):
        again = History.model_validate_json(after(again, one, LIMIT).write())
        twice = decisions[data.draw(st.integers(0, number))]
        assert after(again, twice, LIMIT) is again
    assert again == history
    assert exemplar("a", again) == exemplar("a", history)


@given(LOGS.filter(bool))
def test_an_undo_of_the_last_decision_restores_exactly(rows: list[tuple[object, ...]]) -> None:
    *decisions, last = log(rows)
    number = len(decisions)
    assert known(*decisions, last, undo(number + 1, number)) == known(*decisions)
    assert known(*decisions, last, undo(number + 1, number), undo(number + 2, number + 1)) == known(*decisions, last)


@given(LOGS)
def test_no_tag_is_both_accepted_and_rejected(rows: list[tuple[object, ...]]) -> None:
    accepted, rejected = sides(*log(rows))
    assert not set(accepted) & set(rejected)
    assert len({*accepted, *rejected}) == len(accepted) + len(rejected)
