"""`tagbus explain` with a worker's state: the release in force, and memory from the topics or on a server."""

from pathlib import Path

import pytest

from tagbus.stream.app.assemble import Plan
from tagbus.stream.app.explain.examine import examine
from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.app.explain.worker import as_worker
from tagbus.stream.app.releases.building import build_shared
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.contract.release import ReleaseRecord, encode_release
from tagbus.stream.errors import DependencyDown
from tagbus.stream.tagger import Explained
from tests.app.releases.parts import SECOND, active, recorded, send, settings_at
from tests.app.releases.test_shared import Shared, shared
from tests.releases import SHIPPED, Bus

pytestmark = pytest.mark.kafka


async def explained(settings: Settings, cache: Path | None = None) -> Explanation:
    async with as_worker(settings, cache, Plan()) as (stack, tagger):
        [found] = await tagger.explain_all([Content(id="a", title="The law of the sea")])
        assert isinstance(found, Explained)
        return await examine(stack, found)


async def test_by_the_release_in_force_over_the_topics(bus: Bus, folder: Path, tmp_path: Path) -> None:
    settings = settings_at(bus, folder)
    first = await explained(settings, tmp_path / "cache")
    assert (first.versions.release, first.candidates[0].id) == (SHIPPED.name, "law")
    assert first.versions.taxonomy
    send(bus, encode_release(recorded(folder)), active(SECOND))
    assert (await explained(settings)).versions.release == SECOND
    # A cache holds the embeddings of the release that made them.
    assert (tmp_path / "cache" / SHIPPED.name / "tags").is_dir()


async def test_over_a_shared_memory_once_it_is_built(bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shared(Shared(":memory:"), settings_at(bus, folder), monkeypatch)
    with pytest.raises(DependencyDown, match="`tagbus index` builds it"):
        await explained(settings)
    await build_shared(settings, ReleaseRecord(release=SHIPPED), None)
    found = await explained(settings)
    assert (found.candidates[0].id, found.candidates[0].cut) == ("law", None)
    assert found.versions.taxonomy
