"""Every cycle is found once, in long chains too."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.contract.circles import circles


def found(links: dict[str, list[str]]) -> list[list[str]]:
    return [*circles(links)]


def test_each_circle_is_named_with_its_first_again_at_its_end() -> None:
    assert found({"a": ["a"]}) == [["a", "a"]]
    assert found({"a": ["b"], "b": ["c", "x"], "c": ["b"]}) == [["b", "c", "b"]]
    assert found({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_a_chain_of_100_000_is_looked_at_without_recursion() -> None:
    chain = {f"t{n}": [f"t{n + 1}"] for n in range(100_000)}

    assert found(chain) == []
    assert [len(one) for one in found({**chain, "t100000": ["t0"]})] == [100_002]


@given(links=st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefz"), max_size=4)))
def test_there_is_a_circle_where_an_id_leads_back_to_itself(links: dict[str, list[str]]) -> None:
    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        new = {*links[start]}
        while new:
            seen |= new
            new = {one for way in new for one in links.get(way, [])} - seen
        return seen

    circular = {one for one in links if one in reached(one)}
    named = found(links)

    assert bool(named) == bool(circular)
    for one in named:
        assert one[0] == one[-1]
        assert {*one} <= circular
        assert all(there in links[here] for here, there in pairwise(one))
