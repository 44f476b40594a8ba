"""Compare two releases on the same contents, for `tagbus release check`."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tagbus.stream.app import assemble
from tagbus.stream.app.evaluation import content_of, fit, in_force, tag_all
from tagbus.stream.app.places import files, folders
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import SOURCES
from tagbus.stream.contract.events import Exemplar, exemplar_key
from tagbus.stream.encoder.golden import load_golden
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.index import snapshot
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.index.topics import MemoryTopics

# How much worse a new release may be, in points of P@1.
WORSE = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """The release under check and the one in force: their settings and snapshot folders."""

    name: str
    active: str
    fresh: Settings
    old: Settings
    fresh_memory: Path | None
    old_memory: Path | None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    ok: bool
    subject: str
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and the fitted calibration if it could be fitted."""

    findings: tuple[Finding, ...]
    calibration: Calibration | None


async def compare(pair: Pair, file: Path) -> Report:
    """Run both releases with the current memory on the contents of `file`. Raises UserError for an unusable file."""
    annotated = files.all_of(file, files.exemplar_of)
    if not annotated:
        raise UserError(f"{file} is empty; expected contents with their right tags")
    async with AsyncExitStack() as stack:
        fresh = await stack.enter_async_context(complete(pair.fresh, pair.fresh_memory))
        old = await stack.enter_async_context(complete(pair.old, pair.old_memory))
        shared = pair.fresh.memory.kind == "server"
        findings = [await (_shared_offsets(fresh) if shared else _offsets(pair))]
        await _require_unknown(old, annotated, file)
        annotated = await in_force(old, annotated)
        findings.append(await _counts(fresh, old))
        findings.append(await _golden(fresh))
        calibration, refitted = await _refit(fresh, annotated)
        findings.append(refitted)
        findings.append(_better(pair, await _precision(fresh, annotated), await _precision(old, annotated)))
    return Report(tuple(findings), calibration)


@asynccontextmanager
async def complete(settings: Settings, kept: Path | None) -> AsyncIterator[assemble.TaggingStack]:
    """A release with a complete memory: the shared one as it is, else an in-process one."""
    if settings.memory.kind == "server":
        async with assemble.opened(settings) as stack:
            yield stack
        return
    own = folders.in_process(settings)
    async with assemble.opened(own) as stack, snapshot.caught_up(kept, own, stack.projection(), stack.memories):
        yield stack


async def _shared_offsets(stack: assemble.TaggingStack) -> Finding:
    """Whether workers would accept the shared memory as it is."""
    view = SharedMemory(stack.settings, stack.memories)
    await view.look()
    words = view.problem() or f"the shared memory is {view.remaining()} offsets behind the ends"
    return Finding(not view.problem(), "offsets", words)


async def _offsets(pair: Pair) -> Finding:
    """How far the builder lags behind the ends of the memory topics."""
    settings, kept = pair.fresh, pair.fresh_memory
    with MemoryTopics(settings) as topics:
        ends = {place: marks.high for place, marks in (await asyncio.to_thread(topics.marks)).items()}
    current = None if kept is None else snapshot.current(kept)
    if current is None:
        return Finding(False, "offsets", "there is no snapshot: workers would read and encode everything")
    if wrong := current.origin.difference(await asyncio.to_thread(snapshot.origin, settings)):
        return Finding(False, "offsets", f"workers would not use the snapshot: {wrong}")
    behind = sum(max(0, end - current.offsets.get(place, 0)) for place, end in ends.items())
    minutes = (time.time() - current.time) / 60
    usable = all(current.offsets.get(place, 0) <= end for place, end in ends.items())
    words = f"snapshot of {minutes:.0f} minutes ago, {behind} offsets behind the ends, which were read now"
    return Finding(usable, "offsets", words if usable else "the snapshot is ahead of the topics: they were recreated")


async def _require_unknown(stack: assemble.TaggingStack, annotated: Sequence[Exemplar], file: Path) -> None:
    keys = [exemplar_key(item.id, source) for item in annotated for source in SOURCES]
    if both := sorted(await stack.memory.exemplars.fetch(keys)):
        raise UserError(
            f"{file}: {shorten(both[0])} is among the exemplars too; take contents that memory does not hold"
        )


async def _counts(fresh: assemble.TaggingStack, old: assemble.TaggingStack) -> Finding:
    here, there = [(await one.memory.tags.count(), await one.memory.exemplars.count()) for one in (fresh, old)]
    words = f"{here[0]} tags and {here[1]} exemplars"
    return Finding(here == there, "counts", words if here == there else f"{words}, in force {there[0]} and {there[1]}")


async def _golden(stack: assemble.TaggingStack) -> Finding:
    """Whether the endpoint currently returns the release's golden vectors."""
    golden = load_golden(folders.model_folder(stack.settings), stack.release)
    try:
        golden.check(await stack.encoder.encode(golden.texts), "the encoder")
    except ReleaseMismatch as error:
        return Finding(False, "golden texts", str(error))
    return Finding(True, "golden texts", f"{len(golden.texts)} vectors as recorded")


async def _refit(stack: assemble.TaggingStack, annotated: Sequence[Exemplar]) -> tuple[Calibration | None, Finding]:
    try:
        fitted = await fit(stack, annotated)
    except UserError as error:
        return None, Finding(False, "calibration", str(error))
    return fitted, Finding(True, "calibration", f"{fitted.name} from {fitted.fitted_on} pairs")


async def _precision(stack: assemble.TaggingStack, annotated: Sequence[Exemplar]) -> float:
    """P@1 in percent: the share of contents whose first tag is right."""
    results = await tag_all(stack.tagger(), [content_of(item) for item in annotated], lambda _: None)
    right = sum(
        bool(result.tags) and result.tags[0].id in item.accepted
        for result, item in zip(results, annotated, strict=True)
    )
    return 100 * right / len(annotated)


def _better(pair: Pair, fresh: float, old: float) -> Finding:
    words = f"{fresh:.2f} against {old:.2f} of {pair.active}"
    return Finding(fresh >= old - WORSE, "shadow P@1", f"{words}, at most {WORSE} below is ok")
