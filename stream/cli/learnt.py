"""What was trained, opened by the settings: the recallers beside the graph, the ranker, and their calibration."""

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagbus.stream import calibrate, rank
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.memory.store import Store
from tagbus.stream.recall.base import Recaller
from tagbus.stream.recall.heads import HeadsRecall
from tagbus.stream.recall.heads import read_manifest as read_heads
from tagbus.stream.recall.literal import LiteralRecall
from tagbus.stream.tagger import Pipeline


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one release tags with beside graph recall; loaded once, however many taggers use it."""

    pipeline: Pipeline
    heads: HeadsRecall | None = None
    ranker: rank.TreeRanker | None = None

    def others(self, settings: Settings, tags: Store, taxonomy: Callable[[], Mapping[str, int]]) -> list[Recaller]:
        """The recallers beside the graph, in the order of the path."""
        literal = [LiteralRecall(tags, taxonomy, settings.recall.languages.split(","))] if self.pipeline.literal else []
        return [*literal, *([self.heads] if self.heads else [])]

    async def close(self) -> None:
        """Free the heads. Nothing may be tagged any longer."""
        if self.heads is not None:
            await self.heads.close()


def packaged() -> dict[str, str]:
    """Settings, by their variables, that switch on what travels in the package beside the encoder; none where nothing
    does."""
    folder = Path(str(importlib.resources.files("tagbus.triton_repo")))
    ranker, heads = folder / "ranker" / "1", folder / "heads" / "1"
    if not (ranker / rank.MANIFEST).exists():
        return {}
    manifest = rank.read_manifest(ranker)
    found = {"TAGBUS_RANK__FOLDER": str(ranker), "TAGBUS_RECALL__LITERAL": str("literal" in manifest.lists).lower()}
    return found | ({"TAGBUS_HEADS__FOLDER": str(heads)} if manifest.heads is not None else {})


def pipeline_of(settings: Settings, release: str) -> Pipeline:
    """What the settings switch on over the release of that name. Raises UserError for a folder that holds none."""
    heads, ranker = settings.heads.folder, settings.rank.folder
    return Pipeline(
        release,
        settings.recall.literal,
        None if heads is None else read_heads(heads).name,
        None if ranker is None else rank.read_manifest(ranker).name,
    )


def open_learnt(settings: Settings, release: str) -> Learnt:
    """Load what the settings switch on over the release of that name.

    Raises UserError for a folder that does not hold it, ReleaseMismatch where it was trained over something else.
    """
    pipeline = pipeline_of(settings, release)
    lists = [step for step in pipeline.path if step in {"literal", "heads"}]
    place, folder = settings.heads.folder, settings.rank.folder
    ranker = None if folder is None else rank.TreeRanker.load(folder, release, lists, pipeline.heads)
    heads = None if place is None else HeadsRecall.load(place, release, settings.encoder.threads or 1)
    return Learnt(pipeline, heads, ranker)


def calibration_of(settings: Settings, release: str) -> Calibration:
    """The calibration that the settings name, or the one beside the ranker, or beside the model where there is nothing
    but it, or none. Raises ReleaseMismatch for one that is fitted to another pipeline."""
    pipeline = pipeline_of(settings, release)
    path = settings.tagger.calibration or _beside(settings, pipeline)
    return calibrate.uncalibrated(pipeline.name) if path is None else calibrate.load(path, pipeline.name)


def _beside(settings: Settings, pipeline: Pipeline) -> Path | None:
    alone = pipeline.name == pipeline.release
    folder = settings.rank.folder or ((settings.encoder.folder or default_folder()) if alone else None)
    path = None if folder is None else folder / rank.CALIBRATION
    return path if path is not None and path.exists() else None
