"""The whole pipeline with every model on Triton: the tags, scores and features of the process."""

from pathlib import Path

import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.components import Components
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.encoder.release import sha256
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.rank import trees
from tagbus.stream.rank.cross_encoder.model import read_manifest
from tagbus.stream.rank.features.tables import Statistics, columns
from tagbus.stream.rank.trees import CROSS, MANIFEST, MODEL, SECOND_STAGE, TABLES, Manifest, SecondStage
from tagbus.stream.recall.pool import NAMES
from tagbus.stream.tagger.tagger import Explained
from tests.rank.test_trees import COUNTED, KNOWN, stump
from tests.releases import SHIPPED
from tests.triton.harness import requests, write_tag_vectors

MODELS = ("encoder", "heads", "second_encoder", "cross_encoder")


def settings(repository: Path, ranker: Path | None, **section: object) -> Settings:
    """Every component that has a model; `section` says where it runs."""
    folders = {
        "heads": default_repository() / "heads" / "1",
        "second_encoder": repository / "second_encoder" / "1",
        "cross_encoder": repository / "cross_encoder" / "1",
    }
    components = {name: {"folder": str(folder), **section} for name, folder in folders.items()}
    if ranker is None:
        del components["cross_encoder"]
    else:
        components["ranker"] = {"folder": str(ranker)}
    return Settings.model_construct(
        encoder=EncoderSettings.model_validate({"cache": 0, "deadline_seconds": 60, **section}), components=components
    )


def write_ranker(folder: Path, versions: dict[str, str], lists: tuple[str, ...], cross_encoder: str) -> None:
    """A ranker of one split by what heads say, and one by what the cross-encoder says of the five best."""
    named = (NAMES, *lists)
    first, second = stump(columns(named)), stump((*columns(named), CROSS), CROSS)
    tables = trees.pack(Statistics(COUNTED), KNOWN)
    read = {"cross_encoder": cross_encoder}
    manifest = Manifest(
        name="ranker-0a1b2c3d",
        release=SHIPPED.name,
        components=versions,
        lists=named,
        columns=columns(named),
        names=50,
        neighbours=100,
        listed=60,
        voted=60,
        kept=50,
        propensity=0.0,
        model_sha256=sha256(first),
        tables_sha256=sha256(tables),
        fitted_on=10,
        trees=1,
        second_stage=SecondStage(components=read, top=5, propensity=0.0, model_sha256=sha256(second), trees=1),
    )
    for name, content in ((MODEL, first), (SECOND_STAGE, second), (TABLES, tables)):
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.model_dump_json())


async def explained(chosen: Settings) -> list[Explained]:
    exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)[:30]
    carried = {tag for item in exemplars for tag in item.accepted}
    tags = [tag for tag in files.all_of(example("tags.jsonl"), files.tag_of) if tag.id in carried]
    async with assemble.in_process(chosen) as stack:
        await filling.fill(stack.projection(), {"tags": tags, "exemplars": exemplars}, lambda _: None)
        found = await stack.tagger().explain(files.all_of(example("content.jsonl"), files.content_of)[:20])
    assert all(isinstance(one, Explained) for one in found)
    return found  # type: ignore[return-value]


async def test_with_every_model_on_triton_contents_have_the_tags_of_the_process(
    learnt: TritonServer, learnt_repository: Path, tmp_path: Path
) -> None:
    write_tag_vectors(learnt_repository / "second_encoder" / "1")
    beside = Components.of(settings(learnt_repository, None))
    reads = read_manifest(learnt_repository / "cross_encoder" / "1").name
    write_ranker(tmp_path, beside.versions, beside.lists, reads)
    expected = await explained(settings(learnt_repository, tmp_path))
    before = {model: requests("answered", model) for model in MODELS}

    found = await explained(settings(learnt_repository, tmp_path, kind="triton", address=learnt.address))

    assert all(requests("answered", model) > count for model, count in before.items())
    for one, other in zip(found, expected, strict=True):
        assert one.result.versions == other.result.versions
        assert one.result.path == other.result.path
        assert {"heads", "second_encoder", "rank", "cross_encoder"} <= set(one.result.path)
        assert [tag.id for tag in one.result.tags] == [tag.id for tag in other.result.tags]
        for tag, features in one.features.items():
            assert dict(features) == pytest.approx(dict(other.features[tag]), rel=1e-5, abs=1e-4, nan_ok=True)
    assert any(features[CROSS] > 0 for one in found for features in one.features.values())
