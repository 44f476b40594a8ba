"""Waiting for a dependency: bounded, spread, endless."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.config import RetrySettings
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.retry import backoff, until_answered


@given(first=st.floats(0.001, 1), cap=st.floats(0.001, 10))
def test_waits_stay_under_a_doubling_ceiling(first: float, cap: float) -> None:
    waits = list(islice(backoff(RetrySettings(first_seconds=first, cap_seconds=cap)), 12))

    for attempt, wait in enumerate(waits):
        assert 0 <= wait <= max(first, min(cap, first * 2**attempt))


def test_waits_differ_so_that_workers_do_not_return_together() -> None:
    settings = RetrySettings(first_seconds=1, cap_seconds=1)

    assert len(set(islice(backoff(settings), 20))) > 10


async def test_a_call_is_made_again_until_it_is_answered_and_any_other_error_ends_it() -> None:
    answers: list[Exception | int] = [DependencyDown("away"), DependencyDown("away"), 7, UserError("wrong")]

    async def call() -> int:
        match answers.pop(0):
            case Exception() as error:
                raise error
            case answer:
                return answer

    quick = RetrySettings(first_seconds=0.001, cap_seconds=0.001)
    assert await until_answered(call, quick, "a test") == 7
    with pytest.raises(UserError):
        await until_answered(call, quick, "a test")
