"""Drift: how far current contents and tags differ from the first ones, as the population stability index.

The first contents are the reference window, the last ones are compared with it. For each signal both windows are
counted in the same bins; PSI is the sum over the bins of (now - then) ln(now / then), of their shares. By the usual
rule of thumb, below 0.1 is no shift and above 0.25 a large one. Without a shift it is about (bins - 1)(1/n + 1/m),
0.014 for ten bins, 2,000 contents and 1,000.

Words are kept as checksums: nothing of a content's text is kept or written.
"""

import json
import logging
import math
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.config import DriftSettings
from tagbus.stream.errors import UserError
from tagbus.stream.telemetry import metrics

log = logging.getLogger(__name__)

CONFIDENCE: Final = "confidence"
TAGS: Final = "tags"
ABSTENTION: Final = "abstention"
LANGUAGE: Final = "language"
UNKNOWN_WORDS: Final = "unknown_words"
SIGNALS: Final = (CONFIDENCE, TAGS, ABSTENTION, LANGUAGE, UNKNOWN_WORDS)

BINS: Final = 10
# Added to each bin, or an empty one would make the index infinite.
_LEAST: Final = 0.5
LANGUAGES: Final = 16
WORDS: Final = 200_000
# The limit of words sampled per content.
WORDS_A_CONTENT: Final = 256
# Between two computations of the index, in contents.
EVERY: Final = 50
# The bin of a content in a language that the reference lacks.
OTHER: Final = "other"

Values = Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class Tagged:
    """The sampled facts of a content and its result. `confidence`: of the best tag, None without tags. `words`: their
    checksums."""

    confidence: float | None
    tags: int
    language: str
    words: Sequence[int]


class _Signal(BaseModel):
    """The bins of a signal, by their upper bounds or their names, and the reference's counts."""

    model_config = ConfigDict(frozen=True)

    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    counts: tuple[int, ...]


class Reference(BaseModel):
    """The reference window of a release, as saved in a file."""

    model_config = ConfigDict(frozen=True)

    release: str
    signals: Mapping[str, _Signal]
    words: Annotated[frozenset[int], Field(max_length=WORDS)]

    def bin(self, signal: str, value: float | str) -> int:
        """The bin of a value."""
        one = self.signals[signal]
        if isinstance(value, str):
            return one.names.index(value if value in one.names else OTHER)
        return int(np.searchsorted(one.edges, value))


def psi(now: Sequence[int], then: Sequence[int]) -> float:
    """The population stability index of two counts over the same bins; 0 where either is empty."""
    if not sum(now) or not sum(then):
        return 0.0
    shares = []
    for counts in (now, then):
        smoothed = np.asarray(counts, np.float64) + _LEAST
        shares.append(smoothed / smoothed.sum())
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def made(release: str, contents: Sequence[Tagged]) -> Reference:
    """The reference of a window: its first half defines the known words, its second half the share of unknown ones."""
    half = len(contents) // 2
    known: set[int] = set()
    for one in contents[:half]:
        if len(known) < WORDS - WORDS_A_CONTENT:
            known |= set(one.words)
    words = frozenset(known)
    values = [_values(one, words) for one in contents]
    signals = {
        signal: _signal(
            signal,
            [found[signal] for found in (values[half:] if signal == UNKNOWN_WORDS else values) if signal in found],
        )
        for signal in SIGNALS
    }
    return Reference(release=release, signals=signals, words=words)


def _signal(signal: str, values: Sequence[float | str]) -> _Signal:
    if signal == LANGUAGE:
        found: dict[str, int] = {}
        for value in values:
            found[str(value)] = found.get(str(value), 0) + 1
        best = sorted((name for name in found if name != OTHER), key=lambda name: -found[name])[:LANGUAGES]
        names = (*best, OTHER)
        counts = [found.get(name, 0) for name in best]
        return _Signal(names=names, counts=(*counts, len(values) - sum(counts)))
    numbers = np.array(values, np.float64)
    # Deciles, each once: a signal with few values has fewer bins.
    edges = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS)) if len(numbers) else np.array([0.5])
    bins = np.bincount(np.searchsorted(edges, numbers), minlength=len(edges) + 1)
    return _Signal(edges=tuple(edges.tolist()), counts=tuple(bins.tolist()))


def _values(one: Tagged, known: frozenset[int]) -> Values:
    """A content's value of each signal."""
    found: dict[str, float | str] = {TAGS: one.tags, ABSTENTION: float(not one.tags), LANGUAGE: one.language}
    if one.confidence is not None:
        found[CONFIDENCE] = one.confidence
    if one.words:
        found[UNKNOWN_WORDS] = sum(word not in known for word in one.words) / len(one.words)
    return found


def checksums(words: Iterable[str]) -> "array[int]":
    """The CRC32 of each word's UTF-8."""
    return array("I", (zlib.crc32(word.encode(errors="replace")) for word in words))


@dataclass(slots=True)
class _Window:
    """The last contents, as bins of each signal."""

    size: int
    last: deque[Mapping[str, int]] = field(default_factory=deque)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def clear(self, reference: Reference) -> None:
        self.last.clear()
        self.counts = {name: [0] * len(signal.counts) for name, signal in reference.signals.items()}

    def add(self, bins: Mapping[str, int]) -> None:
        self.last.append(bins)
        for name, index in bins.items():
            self.counts[name][index] += 1
        if len(self.last) > self.size:
            for name, index in self.last.popleft().items():
                self.counts[name][index] -= 1


class Drift:
    """Both windows of a worker, and the gauges. Belongs to one thread."""

    def __init__(self, settings: DriftSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises UserError for a file without a reference."""
        self._settings = settings
        self._clock = clock
        self._allowed, self._asked = 0.0, clock()
        self._first: list[Tagged] = []
        self._release = ""
        self._window = _Window(settings.window)
        self._since = 0
        self._reference = _read(settings.file)
        if self._reference is not None:
            self._release = self._reference.release
            self._window.clear(self._reference)

    def wanted(self, count: int) -> range:
        """Which of `count` contents to sample, spread evenly, at the rate drift.contents_per_second."""
        rate = self._settings.contents_per_second
        now = self._clock()
        # A window's worth may arrive in one burst.
        self._allowed = min(float(self._settings.window), self._allowed + (now - self._asked) * rate)
        self._asked = now
        number = min(count, math.floor(self._allowed))
        if number < 1:
            return range(0)
        self._allowed -= number
        return range(0, count, math.ceil(count / number))

    def observe(self, release: str, contents: Sequence[Tagged]) -> None:
        """Count contents. Another release begins a new reference: its confidences are not comparable."""
        if release != self._release:
            log.info("drift: the reference window begins: release=%s contents=%d", release, self._settings.reference)
            self._release, self._reference, self._first = release, None, []
            self._window.last.clear()
            for signal in SIGNALS:
                metrics.DRIFT.labels(signal=signal).set(0.0)
        for one in contents:
            self._add(one)
        metrics.DRIFT_CONTENTS.labels(window="reference").set(self._seen())
        metrics.DRIFT_CONTENTS.labels(window="current").set(len(self._window.last))

    def _add(self, one: Tagged) -> None:
        if self._reference is None:
            self._first.append(one)
            if len(self._first) >= self._settings.reference:
                self._begin(made(self._release, self._first))
            return
        reference = self._reference
        self._window.add({name: reference.bin(name, value) for name, value in _values(one, reference.words).items()})
        self._since += 1
        # The index of a partial window would be noise.
        if self._since >= EVERY and len(self._window.last) >= self._settings.window:
            self._since = 0
            for name, signal in reference.signals.items():
                metrics.DRIFT.labels(signal=name).set(psi(self._window.counts[name], signal.counts))

    def _begin(self, reference: Reference) -> None:
        self._reference, self._first = reference, []
        self._window.clear(reference)
        if self._settings.file is not None:
            _write(self._settings.file, reference)

    def _seen(self) -> int:
        return len(self._first) if self._reference is None else sum(self._reference.signals[TAGS].counts)


def _read(file: Path | None) -> Reference | None:
    if file is None or not file.exists():
        return None
    try:
        found = Reference.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has no reference window"
        raise UserError(f"TAGBUS_DRIFT__FILE={file}: {reason}; remove it to begin a new one") from None
    if found.signals.keys() != set(SIGNALS) or OTHER not in found.signals[LANGUAGE].names:
        raise UserError(f"TAGBUS_DRIFT__FILE={file}: it lacks signals; remove it to begin a new one")
    return found


def _write(file: Path, reference: Reference) -> None:
    """Replace the file atomically. If that fails the worker continues, and its next start has another reference."""
    aside = file.with_name(f"{file.name}.new")
    try:
        aside.write_text(json.dumps(reference.model_dump(mode="json")), encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        log.warning("drift: the reference is not kept: TAGBUS_DRIFT__FILE=%s: %s", file, error.strerror)
