"""Stamps: version and time in one integer, and the stamp in force after a withdrawal."""

from datetime import UTC, datetime
from math import ulp

import pytest
from hypothesis import given, strategies

from tagbus.stream.bus.process.stamps import (
    milliseconds_of,
    older,
    read,
    stale,
    stamp,
    stamp_of,
    version_of,
    withdrawal,
    withdrawn,
    write,
)

VERSIONS = strategies.none() | strategies.integers(0, 2**63 - 1)
TIMES = strategies.none() | strategies.datetimes(timezones=strategies.just(UTC))


@given(VERSIONS, TIMES)
def test_a_stamp_says_what_it_was_made_of_also_on_the_topic(version: int | None, time: datetime | None) -> None:
    made = stamp_of(version, time)
    assert version_of(made) == version
    found = milliseconds_of(made)
    assert (found is None) == (time is None)
    # A float for a distant year is off by more than a microsecond.
    assert time is None or found is None or abs(found / 1000 - time.timestamp()) <= 0.0005 + ulp(time.timestamp())
    assert read(write(made)) == made


@given(VERSIONS, TIMES, VERSIONS, TIMES)
def test_versions_are_compared_first_then_times(
    version: int | None, time: datetime | None, other_version: int | None, other_time: datetime | None
) -> None:
    one, other = stamp_of(version, time), stamp_of(other_version, other_time)
    found = older(one, other)
    if version is not None and other_version is not None:
        assert found == (version < other_version)
    elif time is not None and other_time is not None:
        assert found == ((milliseconds_of(one) or 0) < (milliseconds_of(other) or 0))
    else:
        assert not found


@given(strategies.integers(-(2**63), 2**63 - 1), strategies.integers(-(2**63), 2**63 - 1))
def test_a_time_may_be_any_number(one: int, other: int) -> None:
    given, newer = stamp(None, one), stamp(None, other)
    assert not older(given, newer) or one < other
    assert version_of(given) is None
    assert read(write(given)) == given
    assert "is wrong, expected" in str(stale("a", given, newer))


@pytest.mark.parametrize(
    "milliseconds", [1_795_000_000_000_000, 1_795_000_000_000_000_000, 422_212_465_065_983, -(2**62)]
)
def test_a_time_that_is_no_date_counts_as_none(milliseconds: int) -> None:
    assert stamp(None, milliseconds) == 0
    assert stamp(3, milliseconds) == stamp(3, None)
    assert read(b'{"version":null,"time":%d}' % milliseconds) == 0


@given(strategies.binary(max_size=40))
def test_a_value_that_is_none_of_ours_says_nothing(value: bytes) -> None:
    assert read(value) >= 0


@pytest.mark.parametrize("value", [b"", b"[]", b'{"version":-1}', b'{"time":1e30}', b'{"version":"1"}', b"\xff", b"{}"])
def test_a_value_that_is_wrong_says_nothing(value: bytes) -> None:
    assert read(value) == 0


def test_the_error_names_the_published_version() -> None:
    assert str(stale("a", stamp(3, 0), stamp(5, 0))) == (
        "version: 3 is wrong, expected 5 or newer, as published already for content 'a'"
    )
    assert str(stale("a", stamp(3, 0), stamp(None, 1500))) == (
        "time: 1970-01-01T00:00:00.000Z is wrong, expected 1970-01-01T00:00:01.500Z or newer, "
        "as published already for content 'a'"
    )


class TestWithdrawn:
    """The stamp in force after a withdrawal."""

    @given(VERSIONS, TIMES, strategies.none() | strategies.integers(0, 2**40))
    def test_the_version_stays_and_the_later_time(
        self, version: int | None, time: datetime | None, recorded: int | None
    ) -> None:
        before = stamp_of(version, time)
        after = withdrawn(before, stamp(None, recorded))
        assert version_of(after) == version
        times = [one for one in (milliseconds_of(before), recorded) if one is not None]
        assert milliseconds_of(after) == (max(times) if times else None)
        assert read(write(after)) == after
        assert b'"withdrawn":true' in write(after) or after == 0

    @given(VERSIONS, TIMES)
    def test_twice_is_as_once(self, version: int | None, time: datetime | None) -> None:
        once = withdrawn(stamp_of(version, time), stamp(None, 7))
        assert withdrawn(once, stamp(None, 7)) == once

    def test_only_a_higher_version_passes(self) -> None:
        after = withdrawn(stamp(7, None), stamp(None, 1000))
        assert [older(stamp(version, None), after) for version in (3, 7, 8)] == [True, True, False]

    def test_only_a_later_time_passes(self) -> None:
        # The content's own time is after that of the withdrawal's record, or before.
        for own, recorded in ((1000, 500), (500, 1000)):
            after = withdrawn(stamp(None, own), stamp(None, recorded))
            assert [older(stamp(None, time), after) for time in (999, 1000, 1001)] == [True, True, False]

    def test_its_time_is_never_after_it_is_read(self) -> None:
        assert withdrawal(99.5, now=100) == stamp(None, 99_500)
        assert withdrawal(10_000.0, now=100) == stamp(None, 100_000)
        assert withdrawal(None, now=100) == 0

    def test_the_error_says_so(self) -> None:
        after = withdrawn(stamp(7, None), stamp(None, 1500))
        assert str(stale("a", stamp(7, None), after)) == (
            "version: 7 is wrong, expected newer than 7: content 'a' was withdrawn"
        )
        assert str(stale("a", stamp(None, 1000), after)) == (
            "time: 1970-01-01T00:00:01.000Z is wrong, expected newer than 1970-01-01T00:00:01.500Z: "
            "content 'a' was withdrawn"
        )
