"""Label trees: tags by Omikuji's trees over bags of words.

A forest of shallow trees over the known tags, with a linear classifier at each node (Parabel, Prabhu et al. 2018, WWW;
Bonsai, Khandagale et al. 2020, Machine Learning 109). They use no vectors, so they belong to no release. They never
return a tag outside their training data; memory covers those. A folder holds labeltree.json (the known tags, and the
hash of each file), words.json (the terms), and Omikuji's own files; `tagbus train labeltree` writes it.
"""

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, Part, Surroundings, TrainedSettings, variable
from tagbus.stream.recall.trained import Sha256, Trained
from tagbus.stream.recall.words import Bags, Vocabulary

NAME: Final = "labeltree"
MANIFEST: Final = "labeltree.json"
WORDS: Final = "words.json"
FOREST: Final = "forest"

# The ids of a million tags take 30 MB, a million terms 20 MB.
MANIFEST_BYTES: Final = 100_000_000
WORDS_BYTES: Final = 100_000_000
FILE_BYTES: Final = 4_000_000_000

# Concurrent redirects would each restore the other's output.
_ONE: Final = threading.Lock()

FileName = Annotated[str, Field(pattern=r"^[a-z0-9]+\.(json|cbor)$")]


class Manifest(BaseModel):
    """labeltree.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^labeltree-[0-9a-f]{8}$", description="recorded in every result")
    best: int = Field(ge=1, le=1000, description="limit of tags per content")
    beam: int = Field(ge=1, le=1000, description="nodes visited per level")
    words_sha256: Sha256
    files: Mapping[FileName, Sha256] = Field(min_length=1, description="Omikuji's files in `forest`, and their hashes")
    fitted_on: int = Field(ge=1, description="contents that they were trained on")
    tags: tuple[str, ...] = Field(min_length=1, description="ids of the known tags, by number")


class Forest(Protocol):
    """The interface of a loaded Omikuji model."""

    def predict(
        self, feature_value_pairs: Sequence[tuple[int, float]], beam_size: int, top_k: int
    ) -> list[tuple[int, float]]:
        """The best tags of one bag with their probabilities, best first."""


class LabelTreeRecall:
    """Tags by the trees of a folder, each with its own probability, averaged over the trees."""

    name: str = NAME

    def __init__(self, manifest: Manifest, vocabulary: Vocabulary, forest: Forest) -> None:
        self.manifest = manifest
        self._vocabulary = vocabulary
        self._forest = forest

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the trees of a folder. Raises UserError if a file is missing or invalid or Omikuji is not installed,
        ReleaseMismatch if a hash differs from labeltree.json."""
        manifest, files = read_manifest(folder), _files(folder)
        words = files.verified(WORDS, manifest.words_sha256, WORDS_BYTES)
        for name, digest in manifest.files.items():
            files.verified(f"{FOREST}/{name}", digest, FILE_BYTES)
        return cls(manifest, Vocabulary.parse(str(folder / WORDS), words), _open(folder / FOREST))

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each text; empty for a text without known words."""
        # Omikuji releases the GIL during prediction: a title takes about 0.5 ms.
        return await asyncio.to_thread(lambda: self._found(self._vocabulary.bags(query.texts)))

    def _found(self, bags: Bags) -> list[Mapping[str, float]]:
        tags, best, beam = self.manifest.tags, self.manifest.best, self.manifest.beam
        found: list[Mapping[str, float]] = []
        for start, length in zip(bags.starts.tolist(), bags.lengths.tolist(), strict=True):
            terms = bags.terms[start : start + length].tolist()
            weights = bags.weights[start : start + length].tolist()
            pairs = sorted(zip(terms, weights, strict=True))
            listed = self._forest.predict(pairs, beam_size=beam, top_k=best) if pairs else []
            found.append({tags[number]: score for number, score in listed})
        return found


def read_manifest(folder: Path) -> Manifest:
    """Read labeltree.json. Raises UserError that names the file, the field and the expected value."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def name_of(files: Mapping[str, str], words: bytes, tags: Sequence[str]) -> str:
    """The name of trees, derived from their contents. `files`: the hash of each of Omikuji's files."""
    parts = (*(f"{name} {digest}".encode() for name, digest in sorted(files.items())), words, "\n".join(tags).encode())
    return f"labeltree-{sha256(b''.join(hashlib.sha256(part).digest() for part in parts))[:8]}"


@contextmanager
def aside() -> Iterator[None]:
    """Redirect standard output to standard error: Omikuji logs to standard output, where results go."""
    with _ONE:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _open(folder: Path) -> Forest:
    try:
        import omikuji
    except ImportError:
        raise UserError(
            f"{variable(NAME, 'folder')} needs omikuji, which is not installed: pip install 'tagbus[trees]'"
        ) from None
    try:
        with aside():
            forest = omikuji.Model.load(str(folder))
    except RuntimeError as error:
        raise UserError(f"{folder}: {shorten(str(error))}, expected files of `tagbus train labeltree`") from None
    # Concurrent contents are concurrent calls; a thread pool per call would compete with the encoder.
    forest.init_prediction_thread_pool(1)
    loaded: Forest = forest
    return loaded


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, "tagbus train labeltree")


class LabelTreeSettings(TrainedSettings):
    """`folder` holds labeltree.json, words.json and forest/. Requires the extra `trees`."""


async def _open_component(section: LabelTreeSettings, into: Surroundings) -> Part:  # noqa: ARG001 - reads no vector
    if section.folder is None:
        raise ValueError("label trees without a folder are off")
    return Part(recallers=(await asyncio.to_thread(LabelTreeRecall.load, section.folder),))


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=LabelTreeSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open_component,
    lists=(NAME,),
)
