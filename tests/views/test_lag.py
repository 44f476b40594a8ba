"""The lag of a view: in records, and in seconds whether or not the oldest record is known."""

from prometheus_client import REGISTRY

from tagbus.stream.views.lag import Lag
from tagbus.stream.views.transport import Standing


class Clock:
    """Seconds that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def shown() -> tuple[float | None, float | None]:
    names = ("tagbus_views_lag_records", "tagbus_views_lag_seconds")
    records, seconds = (REGISTRY.get_sample_value(name, {"view": "contents"}) for name in names)
    return records, seconds


def test_the_oldest_record_at_work_says_how_long_it_waits() -> None:
    lag = Lag("contents", Clock())
    lag.show({0: Standing(3, 990.0), 1: Standing(4, 940.0), 2: Standing(0, None)})
    assert shown() == (7, 60)


def test_an_unfetched_record_arrived_after_the_last_catch_up() -> None:
    clock = Clock()
    lag = Lag("contents", clock)
    lag.show({0: Standing(0, None)})
    clock.now += 20
    lag.show({0: Standing(0, None)})
    clock.now += 5
    lag.show({0: Standing(9, None)})
    assert shown() == (9, 5)


def test_after_a_start_what_waits_has_waited_since_then_at_least() -> None:
    clock = Clock()
    lag = Lag("contents", clock)
    clock.now += 7
    lag.show({0: Standing(9, None)})
    assert shown() == (9, 7)


def test_a_partition_that_went_does_not_wait_here() -> None:
    lag = Lag("contents", Clock())
    lag.show({0: Standing(9, 900.0)})
    lag.show({})
    assert shown() == (0, 0)


def test_a_record_of_the_future_waits_no_negative_time() -> None:
    lag = Lag("contents", Clock())
    lag.show({0: Standing(1, 2_000.0)})
    assert shown() == (1, 0)
