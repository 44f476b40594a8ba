"""A histogram that observes the values of a batch in one call: observed singly they cost up to 1 µs each."""

import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BatchHistogram(Collector):
    """The histogram, with at most one label whose values are all known from the start."""

    def __init__(
        self, name: str, text: str, buckets: Sequence[float], label: str = "", values: Sequence[str] = ("",)
    ) -> None:
        """`values`: all possible values of the label."""
        self._name, self._text, self._label = name, text, label
        self._bounds = np.array([*buckets, np.inf])
        self._counts: Mapping[str, NDArray[np.int64]] = {one: np.zeros(len(self._bounds), np.int64) for one in values}
        self._sums = dict.fromkeys(values, 0.0)
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe(self, values: Sequence[float], label: str = "") -> None:
        """Count each value in the first bucket whose bound is not below it. Raises KeyError for an unknown label."""
        found = np.array(values, dtype=np.float64)
        counts = np.bincount(np.searchsorted(self._bounds, found), minlength=len(self._bounds))
        with self._lock:
            self._counts[label][:] += counts
            self._sums[label] += float(found.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Called by the registry on each scrape."""
        with self._lock:
            found = {one: (np.cumsum(counts).tolist(), self._sums[one]) for one, counts in self._counts.items()}
        bounds = list(map(floatToGoString, self._bounds.tolist()))
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for one, (counts, total) in found.items():
            family.add_metric([one] if self._label else [], list(zip(bounds, counts, strict=True)), total)
        yield family
