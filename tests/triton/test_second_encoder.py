"""The second encoder on a real tritonserver: the vectors and the tags of the process."""

import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from tagbus.stream.app import assemble, filling
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.encoder.golden import TEXTS
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.recall.second_encoder import COMPONENT, NAME
from tests.triton.harness import read_config, requests, write_tag_vectors

CONFIG = read_config(default_repository() / NAME / "config.pbtxt")
TAGS = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea"), Tag(id="tea", name="tea")]
KNOWN = [
    Exemplar(id="1", title="Honey from the roof", accepted=("bees",)),
    Exemplar(id="2", title="Harbours and treaties", accepted=("law",)),
]
CONTENT = Content(id="c", title="Honey and hives", text="Bees in the city")


@pytest.fixture(scope="module")
def folder(learnt_repository: Path) -> Path:
    """What the server serves, with tag vectors as a worker wants them."""
    place = learnt_repository / NAME / "1"
    write_tag_vectors(place, [tag.id for tag in TAGS])
    return place


def settings(folder: Path, **section: object) -> Settings:
    """The release's encoder in the process, at an address where nobody listens."""
    encoder = EncoderSettings(address="127.0.0.1:1", deadline_seconds=60.0, cache=100)
    return Settings.model_construct(encoder=encoder, components={NAME: {"folder": str(folder), **section}})


async def tagged(chosen: Settings) -> TaggedContent:
    async with assemble.in_process(chosen) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": KNOWN}, lambda _: None)
        (result,) = await stack.tagger().tag([CONTENT])
    assert isinstance(result, TaggedContent)
    return result


def test_the_defaults_are_those_of_the_repository() -> None:
    chosen = COMPONENT.section({})
    assert (chosen.kind, chosen.model, [chosen.version]) == (
        "in_process",
        CONFIG.name,
        list(CONFIG.version_policy.specific.versions),
    )


async def test_its_vectors_are_those_of_the_process_and_are_kept(learnt: TritonServer, folder: Path) -> None:
    given = settings(folder, kind="triton", address=learnt.address)
    section = COMPONENT.section(given.components[NAME])
    here = OnnxEncoder(folder)
    expected = await here.encode(TEXTS)
    await here.close()
    there = await open_encoder(section.at(given.encoder), folder, section.origin(NAME))

    found = await there.encode(TEXTS)
    answered = requests("answered", NAME)
    again = await there.encode(TEXTS)
    await there.close()

    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(again, found)
    assert requests("answered", NAME) == answered > 0
    assert (REGISTRY.get_sample_value("tagbus_triton_cached_texts_total", {"model": NAME}) or 0) >= len(TEXTS)


async def test_a_content_has_the_tags_that_it_has_with_the_model_in_the_process(
    learnt: TritonServer, folder: Path
) -> None:
    expected = await tagged(settings(folder))
    before = requests("answered", NAME)

    found = await tagged(settings(folder, kind="triton", address=learnt.address))

    assert requests("answered", NAME) > before
    assert found.versions == expected.versions
    assert found.path == expected.path
    assert [tag.id for tag in found.tags] == [tag.id for tag in expected.tags]
    for one, other in zip(found.tags, expected.tags, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.evidence.scores == pytest.approx(other.evidence.scores, abs=1e-5)


async def test_a_server_of_another_encoder_is_refused_by_name(learnt: TritonServer, folder: Path) -> None:
    """Given the folder of the release, when the server has another encoder, then its vectors give it away."""
    given = settings(folder, kind="triton", address=learnt.address)
    section = COMPONENT.section(given.components[NAME])
    with pytest.raises(ReleaseMismatch, match=r"model second_encoder version 1 is not release minilm.*: golden text"):
        await open_encoder(section.at(given.encoder), default_folder(), section.origin(NAME))


@pytest.mark.parametrize("address", ["triton", "triton:http"])
async def test_an_address_of_its_own_is_told_by_its_own_name(folder: Path, address: str) -> None:
    with pytest.raises(UserError, match=r"^TAGBUS_COMPONENTS__SECOND_ENCODER__ADDRESS='triton.*: expected host:port"):
        await tagged(settings(folder, kind="triton", address=address))


async def test_without_tritons_client_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("triton", "client", "isolation", "balance", "endpoint"):
        monkeypatch.delitem(sys.modules, f"tagbus.stream.encoder.{name}")
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(UserError, match=r"TAGBUS_COMPONENTS__SECOND_ENCODER__KIND=triton needs .*'tagbus\[triton\]'"):
        await tagged(settings(folder, kind="triton"))
