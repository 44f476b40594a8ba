"""The ancestors of a tag, nearest first, for any parent relations."""

from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.recall.taxonomy.hierarchy import BROADER, LEVELS, broader_of

Parents = dict[str, list[str]]


def above(parents: Parents, tag: str) -> tuple[list[str], bool]:
    return broader_of(tag, lambda one: parents.get(one, []))


def test_the_nearest_come_first_and_each_once() -> None:
    parents = {"physics": ["science"], "optics": ["physics", "light"], "light": ["science"], "science": ["all"]}

    assert above(parents, "optics") == (["physics", "light", "science", "all"], False)
    assert above(parents, "all") == ([], False)


def test_a_cycle_is_reported_for_its_members_and_not_followed() -> None:
    assert above({"a": ["a", "b"]}, "a") == (["b"], True)
    assert above({"a": ["b"], "b": ["c"], "c": ["a"]}, "a") == (["b", "c"], True)
    assert above({"x": ["a"], "a": ["b"], "b": ["a"]}, "x") == (["a", "b"], False)


def test_levels_and_numbers_are_bounded() -> None:
    chain = {f"t{n}": [f"t{n + 1}"] for n in range(1_000)}
    wide = {"t": [f"a{n}" for n in range(BROADER)], "a0": ["z"]}

    assert above(chain, "t0")[0] == [f"t{n}" for n in range(1, LEVELS + 1)]
    assert len(above(wide, "t")[0]) == BROADER


@given(parents=st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefz"), max_size=4)))
def test_a_tag_is_never_above_itself_and_all_of_its_parents_are(parents: Parents) -> None:
    for tag in parents:
        found, _ = above(parents, tag)
        assert len(found) == len(set(found))
        assert tag not in found
        assert set(parents[tag]) - {tag} <= set(found)
