"""Finding the last record of each key."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.index.latest import Latest
from tagbus.stream.memory.store import Source

RECORDS = st.lists(
    st.tuples(st.sampled_from("abcdé"), st.integers(0, 2), st.integers(0, 50), st.integers(0, 9)), max_size=40
)


@given(RECORDS)
def test_it_is_the_newest_of_the_partition_and_the_youngest_of_those(records: list[tuple[str, int, int, int]]) -> None:
    sources = {}
    for key, partition, offset, time in records:
        sources[key, partition, offset] = Source(partition, offset, time)
    latest, expected = Latest(), dict[str, list[Source]]()
    for (key, _, _), source in sources.items():
        latest.add(key, source)
        expected.setdefault(key, []).append(source)
    lasts = latest.settled()
    assert len(lasts) == len(expected)
    for key, of_key in expected.items():
        heads = [max((one for one in of_key if one.partition == number), default=None) for number in range(3)]
        found = [one for one in of_key if lasts.is_last(key, one)]
        assert len(found) == 1
        assert found[0] in heads
        assert found[0].time == max(one.time for one in heads if one is not None)
    assert lasts.known([*expected, "nobody's"]).tolist() == [True] * len(expected) + [False]


def test_a_topic_without_records_has_no_last_ones() -> None:
    lasts = Latest().settled()
    assert len(lasts) == 0
    assert not lasts.is_last("a", Source(0, 0, 0))
    assert np.array_equal(lasts.known(["a"]), [False])
