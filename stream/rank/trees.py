"""The learned ranker: trees over the features of all candidates (LambdaMART, Burges 2010, MSR-TR-2010-82).

A folder holds ranker.json (its training data and inputs), ranker.onnx (the trees), tables.npz (how often each tag was
right, alone and with others, and the counts of the named feature tables) and calibration.json. `tagbus train ranker`
writes it.

With a cross-encoder there is a second stage, second_stage.onnx: the first trees order the union, the cross-encoder
scores the best of it, and the second trees, which also see its score, order all candidates.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from pydantic_core import from_json, to_json

from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.onnx_runtime import InferenceSession, SessionOptions
from tagbus.stream.rank.candidates import Drawn, Facts, Rated, best
from tagbus.stream.rank.features.base import Limits, Tables, draw
from tagbus.stream.rank.features.tables import Statistics, TableName, arrays, columns, features, load
from tagbus.stream.recall.component import ComponentOf, Part, Surroundings, TrainedSettings
from tagbus.stream.recall.neighbours import Reach
from tagbus.stream.recall.pool import NAMES, Floats, Ints, Pool
from tagbus.stream.recall.trained import Sha256, Trained

NAME: Final = "ranker"
MANIFEST: Final = "ranker.json"
MODEL: Final = "ranker.onnx"
SECOND_STAGE: Final = "second_stage.onnx"
TABLES: Final = "tables.npz"
CALIBRATION: Final = "calibration.json"

MANIFEST_BYTES: Final = 1_000_000
# Trees and tables of YSO take 2 MB and 5 MB.
FILE_BYTES: Final = 500_000_000
# Propensities are meaningless for fewer contents.
FEWEST: Final = 3
INPUT: Final = "features"
# The column of the second stage: the cross-encoder's probability, NaN if it was not asked.
CROSS: Final = "cross"


@dataclass(frozen=True, slots=True)
class Over:
    """What a ranker is bound to by its training: an encoder's release, the lists that it reads (`names` first), and the
    versions of the components that provide them."""

    release: str
    lists: tuple[str, ...] = (NAMES,)
    components: Mapping[str, str] = field(default_factory=dict)


class SecondStage(BaseModel):
    """The second stage, in ranker.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: Mapping[str, str] = Field(description="the component whose score it reads, and its version")
    top: int = Field(ge=1, le=1000, description="candidates per content that it scores, the first stage's best")
    propensity: FiniteFloat = Field(ge=0, le=10, description="as that of the first stage")
    model_sha256: Sha256
    trees: int = Field(ge=1)


class Manifest(BaseModel):
    """ranker.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^ranker-[0-9a-f]{8}$", description="recorded in every result")
    release: str = Field(description="of the encoder whose neighbours and similarities it was trained on")
    components: Mapping[str, str] = Field(description="versions of the components that provide its lists")
    lists: tuple[str, ...] = Field(description="recallers whose lists it reads, `names` (C2T) first")
    tables: tuple[TableName, ...] = Field((), description="named feature tables that it reads")
    columns: tuple[str, ...] = Field(description="features, in the order of the trees' input")
    names: int = Field(ge=1, le=1000, description="nearest tags that are read")
    neighbours: int = Field(ge=1, le=1000, description="nearest exemplars that vote")
    listed: int = Field(ge=1, le=1000, description="limit of candidates from a list")
    voted: int = Field(ge=1, le=1000, description="limit of candidates by votes")
    kept: int = Field(ge=1, le=1000, description="limit of scored candidates, the best by reciprocal ranks")
    sure: int = Field(0, ge=0, le=1000, description="of each list by name, the best that are always scored")
    propensity: FiniteFloat = Field(ge=0, le=10, description="a tag's score grows by this times -log of its propensity")
    model_sha256: Sha256
    tables_sha256: Sha256
    fitted_on: int = Field(ge=1, description="contents that the trees were trained on")
    trees: int = Field(ge=1)
    second_stage: SecondStage | None = Field(
        None, description="the second stage, if it was trained with a cross-encoder"
    )


class TreeRanker:
    """Scores candidates with the trees of a folder."""

    def __init__(
        self,
        manifest: Manifest,
        model: bytes,
        statistics: Statistics,
        known: Sequence[str],
        second: "SecondTrees | None" = None,
    ) -> None:
        """`known`: ids of the tags counted in `statistics`, by number."""
        self._session = _session(model)
        self._manifest = manifest
        self._statistics = statistics
        self._limits = Limits(manifest.listed, manifest.voted, manifest.kept, manifest.sure)
        self.name = manifest.name
        self.known: Sequence[str] = known
        self.columns: Sequence[str] = manifest.columns
        self.reach = Reach(manifest.names, manifest.neighbours)
        self.second_stage = second

    @classmethod
    def load(cls, folder: Path, over: Over) -> Self:
        """Load the ranker of a folder for the components that are on.

        Raises UserError if a file is missing or is not a ranker's, ReleaseMismatch if a hash differs from ranker.json
        or the ranker was trained on another release, other components, other lists or another cross-encoder.
        """
        manifest = read_manifest(folder)
        files = _files(folder)
        model, packed = (
            files.verified(name, digest, FILE_BYTES)
            for name, digest in ((MODEL, manifest.model_sha256), (TABLES, manifest.tables_sha256))
        )
        _check_over(folder, manifest, over)
        statistics, known = unpack(folder / TABLES, packed, manifest.tables)
        second = None
        if manifest.second_stage is not None:
            again = files.verified(SECOND_STAGE, manifest.second_stage.model_sha256, FILE_BYTES)
            second = SecondTrees(manifest.second_stage, again, statistics.tables, (*manifest.columns, CROSS))
        return cls(manifest, model, statistics, known, second)

    def draw(self, pool: Pool) -> Drawn:
        """The best of each list and of the votes."""
        return draw(pool, self._limits)

    def rate(self, pool: Pool, drawn: Drawn, facts: Facts) -> Rated:
        """The trees' score of each candidate, plus the bonus of a rare tag."""
        found = features(pool, drawn, facts, self._statistics, self._manifest.lists)
        if not len(found):
            return Rated(np.zeros(0, np.float32), found)
        (scores,) = self._session.run(None, {INPUT: found})
        worth = self._manifest.propensity * rarity(self._statistics.tables, drawn.tags)
        return Rated(scores[:, 0] + worth, found)


class SecondTrees:
    """The second stage: trees over the features of all candidates and the cross-encoder's score of the best few.

    `top`: candidates per content that the cross-encoder scores. `columns`: of the features, its score last.
    """

    def __init__(self, about: SecondStage, model: bytes, tables: Tables, columns: Sequence[str]) -> None:
        self._about = about
        self._session = _session(model)
        self._tables = tables
        self.top = about.top
        self.columns = columns

    def asked(self, rows: Ints, tags: Ints, rated: Rated) -> Ints:
        """The best of each content: see `SecondRanker`."""
        return best(rows, tags, rated.scores, self._about.top)

    def rate(self, tags: Ints, rated: Rated, asked: Ints, found: Floats) -> Rated:
        """The trees' score of each candidate, scored by the cross-encoder or not: see `SecondRanker`."""
        seen = crossed(rated.features, asked, found)
        if not len(seen):
            return Rated(rated.scores, seen)
        (scores,) = self._session.run(None, {INPUT: seen})
        return Rated(scores[:, 0] + self._about.propensity * rarity(self._tables, tags), seen)


def crossed(features: Floats, asked: Ints, found: Floats) -> Floats:
    """The features with the column `cross`: the cross-encoder's score where it was asked, NaN elsewhere."""
    column = np.full((len(features), 1), np.nan, np.float32)
    column[asked, 0] = found
    return np.concatenate([features, column], axis=1)


def _session(model: bytes) -> InferenceSession:
    options = SessionOptions()
    # The encoder already uses the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def read_manifest(folder: Path) -> Manifest:
    """Read ranker.json. Raises UserError that names the file, the field and the expected value."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def rarity(tables: Tables, tags: Ints) -> Floats:
    """-log of each tag's propensity (Jain et al. 2016, KDD, equation 2, A 0.55, B 1.5): float32, 0 for a common tag.

    Propensity is the probability that a right tag was annotated; a tag that was never counted gets the largest value.
    """
    if tables.contents < FEWEST:
        return np.zeros(tags.shape, np.float32)
    scale = (np.log(tables.contents) - 1) * 2.5**0.55
    return np.asarray(np.log1p(scale * (tables.count(tags) + 1.5) ** -0.55), np.float32)


def pack(statistics: Statistics, known: Sequence[str]) -> bytes:
    """Serialize tables.npz: plain arrays, no pickled objects."""
    file, tables = BytesIO(), statistics.tables
    np.savez_compressed(
        file,
        allow_pickle=False,
        tags=np.frombuffer(to_json(list(known)), np.uint8),
        counts=tables.counts,
        pairs=tables.pairs,
        together=tables.together,
        contents=np.int64(tables.contents),
        **arrays(statistics.named),
    )
    return file.getvalue()


def unpack(path: Path, packed: bytes, names: Sequence[TableName] = ()) -> tuple[Statistics, list[str]]:
    """The statistics with the named tables, and the ids of their tags. Raises UserError for a file that `pack` did not
    write."""
    try:
        with np.load(BytesIO(packed), allow_pickle=False) as file:
            known = from_json(file["tags"].tobytes())
            counts, pairs, together = (file[name].astype(np.int64) for name in ("counts", "pairs", "together"))
            contents = int(file["contents"])
            named = load(names, file, len(known))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise UserError(f"{path}: {shorten(str(error))}, expected a file of `tagbus train ranker`") from None
    if not len(known) == len(counts) or pairs.shape != together.shape or (np.diff(pairs) <= 0).any():
        raise UserError(f"{path}: {len(known)} tags, {len(counts)} counts, {len(pairs)} pairs, which do not fit")
    return Statistics(Tables(counts, pairs, together, contents), named), known


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, "tagbus train ranker")


def _check_over(folder: Path, manifest: Manifest, over: Over) -> None:
    read = manifest.second_stage.components if manifest.second_stage else {}
    wanted = {"release": manifest.release, **manifest.components, **read}
    there = {"release": over.release, **over.components}
    pairs: list[tuple[str, object, object]] = [
        (name, wanted.get(name), there.get(name)) for name in dict.fromkeys((*wanted, *there))
    ]
    pairs.append(("lists", sorted(manifest.lists), sorted(over.lists)))
    for what, trained, used in pairs:
        if trained != used:
            raise ReleaseMismatch(
                f"{folder / MANIFEST}: {manifest.name} was trained over {what} {shorten(trained)}, but this is "
                f"{shorten(used)}; retrain it with `tagbus train ranker` or configure what it was trained over"
            )
    if manifest.columns != columns(manifest.lists, manifest.tables):
        raise ReleaseMismatch(f"{folder / MANIFEST}: columns: not those that this version of tagbus computes")


def over(release: str, lists: Sequence[str], versions: Mapping[str, str]) -> Over:
    """The binding for these lists and component versions."""
    others = {name: version for name, version in versions.items() if name != NAME}
    return Over(release, (NAMES, *lists), others)


class RankerSettings(TrainedSettings):
    """`folder` holds ranker.json, ranker.onnx, tables.npz, its calibration.json and, with a cross-encoder,
    second_stage.onnx."""


@dataclass(frozen=True, slots=True)
class RankerPart(Part):
    """The ranker, for the stage `rank`."""

    ranker: TreeRanker = field(kw_only=True)


async def _open_component(section: RankerSettings, into: Surroundings) -> Part:
    if section.folder is None:
        raise ValueError("a ranker without a folder is off")
    there = over(into.release.name, into.lists, into.versions)
    ranker = await asyncio.to_thread(TreeRanker.load, section.folder, there)
    return RankerPart(ranker=ranker)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=RankerSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open_component,
    stage="rank",
    calibration=CALIBRATION,
)
