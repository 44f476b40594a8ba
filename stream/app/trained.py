"""What was trained, opened by the settings: the recallers beside the graph, the ranker, and their calibration."""

import asyncio
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from tagbus.stream import calibrate
from tagbus.stream.app import second_encoders
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.encoder.open import without_client
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import UserError
from tagbus.stream.rank import trees
from tagbus.stream.rank.cross_encoder import OnnxCrossEncoder
from tagbus.stream.rank.cross_encoder import read_manifest as read_cross_encoder
from tagbus.stream.recall import second_encoder
from tagbus.stream.recall.base import Recaller
from tagbus.stream.recall.heads import HeadsRecall
from tagbus.stream.recall.heads import read_manifest as read_heads
from tagbus.stream.recall.labeltree import LabelTreeRecall
from tagbus.stream.recall.labeltree import read_manifest as read_labeltree
from tagbus.stream.recall.pool import NAMES
from tagbus.stream.tagger import Pipeline

# The lists that a step of the path gives a ranker.
LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "literal": ("literal",),
    "heads": ("heads",),
    "labeltree": ("labeltree",),
    "second_encoder": second_encoder.LISTS,
}


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one release tags with beside graph recall; loaded once, however many taggers use it."""

    pipeline: Pipeline
    heads: HeadsRecall | None = None
    labeltree: LabelTreeRecall | None = None
    ranker: trees.TreeRanker | None = None
    cross_encoder: OnnxCrossEncoder | None = None

    def others(self) -> list[Recaller]:
        """The recallers that were trained, in the order of the path."""
        return [one for one in (self.heads, self.labeltree) if one is not None]

    async def close(self) -> None:
        """Free heads and cross-encoder. Nothing may be tagged any longer."""
        if self.heads is not None:
            await self.heads.close()
        if self.cross_encoder is not None:
            await asyncio.to_thread(self.cross_encoder.close)


def packaged() -> dict[str, str]:
    """Settings, by their variables, that switch on what travels in the package beside the encoder; none where nothing
    does."""
    folder = Path(str(importlib.resources.files("tagbus.triton_repo")))
    ranker, heads = folder / "ranker" / "1", folder / "heads" / "1"
    if not (ranker / trees.MANIFEST).exists():
        return {}
    manifest = trees.read_manifest(ranker)
    found = {"TAGBUS_RANK__FOLDER": str(ranker), "TAGBUS_RECALL__LITERAL": str("literal" in manifest.lists).lower()}
    return found | ({"TAGBUS_HEADS__FOLDER": str(heads)} if manifest.heads is not None else {})


def pipeline_of(settings: Settings, release: str) -> Pipeline:
    """What the settings switch on over the release of that name. Raises UserError for a folder that holds none, and for
    a cross-encoder without a ranker."""
    heads, forest = settings.heads.folder, settings.labeltree.folder
    ranker, cross_encoder = settings.rank.folder, settings.cross_encoder.folder
    if cross_encoder is not None and ranker is None:
        raise UserError(
            f"TAGBUS_CROSS_ENCODER__FOLDER={cross_encoder}: only a ranker reads its scores, and there is none; set "
            "TAGBUS_RANK__FOLDER to one that was trained with it, or unset this"
        )
    return Pipeline(
        release,
        settings.recall.literal,
        None if heads is None else read_heads(heads).name,
        None if forest is None else read_labeltree(forest).name,
        second_encoders.name_of(settings),
        None if ranker is None else trees.read_manifest(ranker).name,
        None if cross_encoder is None else read_cross_encoder(cross_encoder).name,
    )


def over_of(pipeline: Pipeline) -> trees.Over:
    """What a ranker of this pipeline reads."""
    lists = chain.from_iterable(LISTS.get(step, ()) for step in pipeline.path)
    return trees.Over(pipeline.release, (NAMES, *lists), pipeline.heads, pipeline.labeltree, pipeline.second_encoder)


async def open_learnt(settings: Settings, release: str) -> Learnt:
    """Load what the settings switch on over the release of that name.

    Raises UserError for a folder that does not hold it, ReleaseMismatch where it was trained over something else or a
    server has other heads, DependencyDown where Triton is to have the heads and does not answer.
    """
    learnt = await asyncio.to_thread(_load, settings, release)
    return replace(learnt, heads=await _open_heads(settings, release))


def _load(settings: Settings, release: str) -> Learnt:
    """All but the heads."""
    pipeline = pipeline_of(settings, release)
    folder, read, forest = settings.rank.folder, settings.cross_encoder.folder, settings.labeltree.folder
    cross_encoder = None if read is None else OnnxCrossEncoder.load(read, settings.encoder.threads)
    ranker = None if folder is None else trees.TreeRanker.load(folder, over_of(pipeline), cross_encoder)
    return Learnt(pipeline, None, None if forest is None else LabelTreeRecall.load(forest), ranker, cross_encoder)


async def _open_heads(settings: Settings, release: str) -> HeadsRecall | None:
    folder = settings.heads.folder
    if folder is None:
        return None
    if settings.heads.kind == "in_process":
        return await asyncio.to_thread(HeadsRecall.load, folder, release, settings.encoder.threads or 1)
    try:
        from tagbus.stream.recall.triton import open_heads
    except ImportError as error:
        raise without_client("TAGBUS_HEADS__KIND", error) from None
    return await open_heads(folder, release, settings.heads, settings.encoder)


def calibration_of(settings: Settings, release: str) -> Calibration:
    """The calibration that the settings name, or the one beside the ranker, or beside the model where there is nothing
    but it, or none. Raises ReleaseMismatch for one that is fitted to another pipeline."""
    pipeline = pipeline_of(settings, release)
    path = settings.tagger.calibration or _beside(settings, pipeline)
    fingerprint = pipeline.fingerprint
    return calibrate.uncalibrated(fingerprint) if path is None else calibrate.load(path, fingerprint)


def _beside(settings: Settings, pipeline: Pipeline) -> Path | None:
    alone = pipeline == Pipeline(pipeline.release)
    folder = settings.rank.folder or ((settings.encoder.folder or default_folder()) if alone else None)
    path = None if folder is None else folder / trees.CALIBRATION
    return path if path is not None and path.exists() else None
