"""A histogram that observes a batch in one call, with and without a label."""

import pytest
from prometheus_client import REGISTRY

from tagbus.stream.telemetry.batch_histogram import BatchHistogram


def test_each_value_of_the_label_has_its_own_buckets() -> None:
    histogram = BatchHistogram("tagbus_test_seconds", "For this test", (1, 2), "path", ("a", "b"))
    try:
        histogram.observe([0.5, 1.0, 1.5], "a")
        histogram.observe([9.0], "b")
        a = [REGISTRY.get_sample_value("tagbus_test_seconds_bucket", {"path": "a", "le": le}) for le in ("1.0", "2.0")]
        assert a == [2, 3]
        assert REGISTRY.get_sample_value("tagbus_test_seconds_bucket", {"path": "b", "le": "+Inf"}) == 1
        assert REGISTRY.get_sample_value("tagbus_test_seconds_sum", {"path": "b"}) == 9
        with pytest.raises(KeyError):
            histogram.observe([1.0], "another")
    finally:
        REGISTRY.unregister(histogram)
