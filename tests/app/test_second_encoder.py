"""A second encoder, enabled by settings: its memory holds the same records, and every result names it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.components import Components
from tagbus.stream.config import MemorySettings, Settings
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import UserError
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.rank import trees
from tagbus.stream.recall import tagvectors
from tagbus.stream.recall.second_encoder import LISTS
from tagbus.stream.recall.tagvectors import FILE, TagVectors
from tests.releases import SHIPPED, make_release

TAGS = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea"), Tag(id="tea", name="tea")]
KNOWN = [
    Exemplar(id="1", title="Honey from the roof", accepted=("bees",)),
    Exemplar(id="2", title="Harbours and treaties", accepted=("law",)),
]
CONTENT = Content(id="c", title="Honey and hives", text="Bees in the city")


def tag_vectors(length: int) -> TagVectors:
    vectors = np.random.default_rng(0).normal(size=(len(TAGS), length)).astype(np.float32)
    return TagVectors(tuple(tag.id for tag in TAGS), vectors, np.zeros(len(TAGS), np.float32), 20.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_release(tmp_path_factory.mktemp("second_encoder"), "other-1")
    (place / FILE).write_bytes(tag_vectors(SHIPPED.dimension).dump())
    return place


def settings(folder: Path, kind: str = "exact") -> Settings:
    memory = MemorySettings.model_validate({"kind": kind})
    return Settings(components={"second_encoder": {"folder": str(folder)}}, memory=memory)


async def tagged(chosen: Settings) -> TaggedContent:
    async with assemble.opened(chosen) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": KNOWN}, lambda _: None)
        (result,) = await stack.tagger().tag([CONTENT])
    assert isinstance(result, TaggedContent)
    return result


@pytest.mark.parametrize("kind", ["exact", "embedded"])
async def test_a_result_names_the_second_encoder_and_what_its_neighbours_say(made: Path, kind: str) -> None:
    result = await tagged(settings(made, kind))

    name = f"other-1+{tagvectors.read(made)[1]}"
    assert result.versions.components == {"second_encoder": name}
    assert "second_encoder" in result.path
    bees = next(tag for tag in result.tags if tag.id == "bees")
    assert 0 < bees.evidence.scores["second_encoder"] <= 1


async def test_its_memory_holds_the_same_records_by_its_own_vectors(made: Path, tmp_path: Path) -> None:
    chosen = settings(made)
    async with assemble.in_process(chosen, tmp_path) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": KNOWN}, lambda _: None)
        memory, beside = stack.memories
        assert await beside.exemplars.keys() == await memory.exemplars.keys() == {"1/people", "2/people"}
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": KNOWN[:1]}, lambda _: None)
        assert await beside.exemplars.keys() == {"1/people"}
        await filling.save_memories(tmp_path, stack.memories)

    async with assemble.in_process(chosen, tmp_path) as again:
        beside = again.memories[1]
        assert beside.exemplars.release == "other-1"
        assert await beside.exemplars.count() == 1
        assert isinstance(beside.exemplars, ExactStore)


def test_a_ranker_must_have_been_trained_beside_it(made: Path) -> None:
    components = Components.of(settings(made))
    over = trees.over(SHIPPED.name, components.lists, components.versions)

    assert over.components == components.versions
    assert components.versions.keys() == {"second_encoder"}
    assert over.lists == ("names", *LISTS)
    assert components.fingerprint(SHIPPED.name).path == "recall+second_encoder"


async def test_an_encoder_without_tag_vectors_is_no_second_encoder(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "other-1"))
    (folder / FILE).unlink()

    with pytest.raises(UserError, match=r"tags\.npz.*--recipe top-layers"):
        await tagged(settings(folder))


async def test_vectors_of_another_length_are_refused(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "other-1"))
    (folder / FILE).write_bytes(tag_vectors(7).dump())

    with pytest.raises(UserError, match="vectors of 7 numbers"):
        await tagged(settings(folder))


async def test_the_release_is_not_its_own_second_encoder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(default_folder(), tmp_path / "same"))
    (folder / FILE).write_bytes(tag_vectors(SHIPPED.dimension).dump())

    with pytest.raises(UserError, match="it is the release itself"):
        await tagged(settings(folder))
