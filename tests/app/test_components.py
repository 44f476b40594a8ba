"""The registry of components: sections, versions, prerequisites, and adding a recaller."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import Plan, calibration_of
from tagbus.stream.app.components import REGISTRY, Components, brought, effective, packaged, switched
from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.config import ReleaseSettings, Settings, TaggerSettings, load
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory.kinds import TAGS
from tagbus.stream.rank import trees
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, ComponentSettings, Part, Surroundings
from tagbus.stream.recall.heads.model import read_manifest
from tests.cross_encoders import write_cross_encoder

RELEASE = load_release(default_folder())


def settings(components: Mapping[str, Mapping[str, object]] | None = None, **chosen: object) -> Settings:
    return switched(Settings.model_construct(**chosen), components or {})  # type: ignore[arg-type]


async def open_all(given: Settings) -> None:
    async with assemble.in_process(given):
        pass


async def test_with_nothing_switched_on_all_is_the_release() -> None:
    async with assemble.in_process(settings()) as stack:
        assert stack.components.versions == {}
        assert stack.parts == {}
        assert stack.fingerprint() == Fingerprint(RELEASE.name, "recall", {})


def test_the_calibration_beside_the_model_is_for_the_model_alone() -> None:
    alone = settings()
    assert calibration_of(alone, RELEASE, Components.of(alone)).name.startswith("isotonic-")
    literal = settings({"literal": {"enabled": True}})
    fitted = calibration_of(literal, RELEASE, Components.of(literal))
    assert fitted == uncalibrated(Fingerprint(RELEASE.name, "recall+literal", {"literal": "literal-1-en"}))


def test_a_calibration_that_is_named_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    uncalibrated(Fingerprint("another", "recall", {})).save(path)
    given = settings(tagger=TaggerSettings(calibration=path))
    with pytest.raises(
        ReleaseMismatch,
        match=f"is fitted to 'another by recall', but this is '{RELEASE.name} by recall'; run `tagbus calib",
    ):
        calibration_of(given, RELEASE, Components.of(given))


@pytest.mark.parametrize("name", [one.name for one in REGISTRY if "folder" in one.settings.model_fields])
@pytest.mark.parametrize("place", [".", "missing"])
async def test_a_folder_that_holds_nothing_is_told_with_its_setting(name: str, place: str, tmp_path: Path) -> None:
    folder = tmp_path / place
    with pytest.raises((UserError, ReleaseMismatch), match=f"^TAGBUS_COMPONENTS__{name.upper()}__FOLDER: {folder}/"):
        await open_all(settings({name: {"folder": folder}}))


async def test_one_that_a_release_brings_is_told_without_a_setting(tmp_path: Path) -> None:
    """Given a folder of releases, when a component's subfolder holds nothing, then no variable is at fault."""
    (tmp_path / "r-1" / "heads").mkdir(parents=True)
    base = settings({}).model_copy(update={"releases": ReleaseSettings(folder=tmp_path)})
    with pytest.raises(UserError, match=f"^{tmp_path}/r-1/heads/heads.json: "):
        Components.of(brought(base, tmp_path / "r-1", None))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("heads", "kind", "triton"),
        ("second_encoder", "kind", "triton"),
        ("cross_encoder", "address", "triton:8001"),
        ("heads", "model", "ours"),
        ("heads", "version", "2"),
    ],
)
def test_a_setting_that_does_nothing_without_a_folder_is_told(name: str, field: str, value: str) -> None:
    """A model on Triton needs its folder here too: tags, words and golden answers are in it."""
    given = settings({name: {field: value}})
    with pytest.raises(UserError) as caught:
        Components.of(given)
    assert str(caught.value) == (
        f"TAGBUS_COMPONENTS__{name}__{field}".upper() + f"={value!r}: it does nothing without "
        f"TAGBUS_COMPONENTS__{name.upper()}__FOLDER, the folder that `tagbus train` wrote"
    )
    # Where there are releases some may have the component, and some not.
    assert not Components.of(given.model_copy(update={"releases": ReleaseSettings(folder=Path("releases"))})).on


@pytest.mark.parametrize(
    ("section", "field", "variable"),
    [("encoder", "folder", "TAGBUS_ENCODER__FOLDER"), ("tagger", "calibration", "TAGBUS_TAGGER__CALIBRATION")],
)
async def test_what_a_setting_names_and_is_not_there_is_told_with_the_setting(
    section: str, field: str, variable: str, tmp_path: Path
) -> None:
    given = Settings.model_validate({section: {field: tmp_path / "missing"}})
    with pytest.raises((UserError, ReleaseMismatch), match=f"^{variable}: {tmp_path}/missing"):
        async with assemble.in_process(given) as stack:
            stack.tagger()


async def test_a_cross_encoder_without_a_ranker_is_told(tmp_path: Path) -> None:
    write_cross_encoder(tmp_path)
    with pytest.raises(
        UserError, match=r"cross_encoder is on, but ranker, .*: set TAGBUS_COMPONENTS__RANKER__FOLDER too"
    ):
        await open_all(settings({"cross_encoder": {"folder": tmp_path}}))


class TestSections:
    def test_the_environment_sets_the_fields_of_a_component(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TAGBUS_COMPONENTS__LITERAL__ENABLED", "true")
        monkeypatch.setenv("TAGBUS_COMPONENTS__LITERAL__LANGUAGES", "de,en")
        assert Components.of(load()).versions == {"literal": "literal-1-de,en"}

    def test_a_component_that_is_none_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TAGBUS_COMPONENTS__HAEDS__FOLDER", "/x")
        with pytest.raises(UserError, match="TAGBUS_COMPONENTS__HAEDS: no such component, expected literal, "):
            Components.of(load())

    def test_a_field_that_is_wrong_is_told(self) -> None:
        with pytest.raises(UserError, match="TAGBUS_COMPONENTS__LITERAL__LANGUAGES='english': String should match"):
            Components.of(settings({"literal": {"languages": "english"}}))

    def test_a_field_that_there_is_not_is_told_with_those_that_there_are(self) -> None:
        expected = r"TAGBUS_COMPONENTS__LITERAL__ENABELD='true': Extra inputs .*, expected enabled or languages"
        with pytest.raises(UserError, match=expected):
            Components.of(settings({"literal": {"enabeld": "true"}}))

    @pytest.mark.parametrize("name", ["heads", "gudn", "second_encoder", "cross_encoder"])
    def test_a_model_runs_in_the_process_or_on_triton(self, name: str) -> None:
        with pytest.raises(
            UserError,
            match=f"TAGBUS_COMPONENTS__{name.upper()}__KIND='gpu': Input should be 'in_process' or 'triton'",
        ):
            Components.of(settings({name: {"kind": "gpu"}}))

    @pytest.mark.parametrize("name", ["literal", "bm25", "labeltree", "ranker"])
    def test_what_no_server_runs_has_no_kind(self, name: str) -> None:
        with pytest.raises(UserError, match=f"TAGBUS_COMPONENTS__{name.upper()}__KIND='triton': Extra inputs"):
            Components.of(settings({name: {"kind": "triton"}}))

    def test_every_field_is_shown(self) -> None:
        shown = effective(settings({"literal": {"enabled": "true"}})).components
        assert shown.keys() == {one.name for one in REGISTRY}
        assert shown["literal"] == {"enabled": True, "languages": "en"}
        assert all(section.get("folder") is None for section in shown.values())

    def test_a_release_brings_its_own_in_subfolders(self, tmp_path: Path) -> None:
        (tmp_path / "ranker").mkdir()
        base = settings({"heads": {"folder": "base"}, "literal": {"enabled": True}})
        own = brought(base, tmp_path, 7).components
        assert own["ranker"]["folder"] == tmp_path / "ranker"
        assert (own["heads"]["folder"], own["heads"]["version"]) == (None, 7)
        assert own["literal"] == {"enabled": True}


# Files that name a component besides its own and the registry: the stage that runs it, and where that is put in order.
STAGES = {"cross_encoder": {"app/stages.py", "tagger/cross_encode.py"}}


@pytest.mark.parametrize("name", ["heads", "labeltree", "gudn", "second_encoder", "cross_encoder"])
def test_a_components_name_stands_in_its_own_files_and_in_the_registry(name: str) -> None:
    """Everything else is generic. `literal` and `ranker` are not checked: they are words of their own."""
    (component,) = [one for one in REGISTRY if one.name == name]
    own = component.settings.__module__.removeprefix("tagbus.stream.").replace(".", "/")
    stream = Path(__file__).parents[2] / "stream"
    found = {
        str(path.relative_to(stream)) for path in stream.rglob("*.py") if re.search(rf"\b{name}\b", path.read_text())
    }
    others = {path for path in found if path != f"{own}.py" and not path.startswith(f"{own}/")}
    assert others == {"app/components.py"} | STAGES.get(name, set())


class TestPackaged:
    """What `make models` has put beside the encoder, which the demo runs with."""

    async def test_its_parts_fit_each_other_and_the_release(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on = packaged()
        assert on.keys() == {
            "TAGBUS_COMPONENTS__HEADS__FOLDER",
            "TAGBUS_COMPONENTS__RANKER__FOLDER",
            "TAGBUS_COMPONENTS__LITERAL__ENABLED",
        }
        for name, value in on.items():
            monkeypatch.setenv(name, value)
        async with assemble.in_process(load()) as stack:
            ranker = trees.read_manifest(Path(on["TAGBUS_COMPONENTS__RANKER__FOLDER"]))
            assert stack.components.versions["ranker"] == ranker.name
            assert stack.components.scoring == "recall+literal+heads+rank"
            assert calibration_of(stack.settings, RELEASE, stack.components).name.startswith("isotonic-")
            assert stack.tagger().versions().components == stack.components.versions

    async def test_c2t_may_leave_their_tags_to_the_heads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """New tags are still found by their texts, also those that arrive later."""
        for name, value in (packaged() | {"TAGBUS_RECALL__C2T_TRAINED": "false", "TAGBUS_TAGGER__TAGS": "60"}).items():
            monkeypatch.setenv(name, value)
        known = read_manifest(Path(packaged()["TAGBUS_COMPONENTS__HEADS__FOLDER"])).tags
        tags = [*(Tag(id=one, name=one.replace("::", " ")) for one in known[:40]), Tag(id="new", name="origami")]
        async with assemble.in_process(load()) as stack:
            await filling.fill(stack.projection(), {TAGS.name: tags}, lambda _: None)
            more = [*tags, Tag(id="later", name="paper folding")]
            await filling.fill(stack.projection(), {TAGS.name: more}, lambda _: None)
            (found,) = await stack.tagger().tag([Content(id="c", title="Origami: the art of paper folding")])

        assert isinstance(found, TaggedContent)
        by_text = {tag.id for tag in found.tags if tag.evidence.similarity is not None}
        assert by_text == {"new", "later"} < {tag.id for tag in found.tags}

    @pytest.mark.parametrize(("c2t", "trained"), [("true", "false"), ("true", "true"), ("false", "false")])
    async def test_nothing_is_left_to_c2t_that_is_off(
        self, monkeypatch: pytest.MonkeyPatch, c2t: str, trained: str
    ) -> None:
        chosen = {"TAGBUS_RECALL__C2T": c2t, "TAGBUS_RECALL__C2T_TRAINED": trained}
        for name, value in (packaged() | chosen).items():
            monkeypatch.setenv(name, value)
        async with assemble.in_process(load()) as stack:
            assert (stack.graph.unseen is not None) == ((c2t, trained) == ("true", "false"))

    async def test_a_judge_is_asked_about_what_the_ranker_ranked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The ranker was trained without one, and reads nothing of it."""
        for name, value in (packaged() | {"TAGBUS_LLM__URL": "http://127.0.0.1:9/v1"}).items():
            monkeypatch.setenv(name, value)
        async with assemble.in_process(load()) as stack:
            assert stack.components.scoring == "recall+literal+heads+rank+judge"
            assert stack.components.versions["judge"].startswith("generic-")
            # Its calibration is for the path without the judge; it applies until one is fitted with the judge.
            assert stack.tagger().versions().calibration.startswith("isotonic-")

    async def test_a_cross_encoder_that_the_ranker_does_not_know_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        manifest = write_cross_encoder(tmp_path)
        for name, value in (packaged() | {"TAGBUS_COMPONENTS__CROSS_ENCODER__FOLDER": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        assert Components.of(load()).versions["cross_encoder"] == manifest.name
        with pytest.raises(ReleaseMismatch, match=f"trained over cross_encoder None, but this is '{manifest.name}'"):
            await open_all(load())

    def test_with_the_encoder_it_is_less_than_60_megabytes(self) -> None:
        folder = default_folder().parents[1]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size < 60_000_000

    async def test_a_ranker_of_other_heads_is_refused(self, tmp_path: Path) -> None:
        on = packaged()
        place = Path(on["TAGBUS_COMPONENTS__RANKER__FOLDER"])
        for path in place.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((place / trees.MANIFEST).read_text())
        manifest["components"]["heads"] = "heads-00000000"
        (tmp_path / trees.MANIFEST).write_text(json.dumps(manifest))
        given = settings(
            {
                "literal": {"enabled": on["TAGBUS_COMPONENTS__LITERAL__ENABLED"]},
                "heads": {"folder": on["TAGBUS_COMPONENTS__HEADS__FOLDER"]},
                "ranker": {"folder": tmp_path},
            }
        )
        with pytest.raises(ReleaseMismatch, match="was trained over heads 'heads-00000000', but this is 'heads-"):
            await open_all(given)


class TestFingerprint:
    """What a calibration belongs to: the components that took part in the scores of a path."""

    def test_a_path_without_a_stage_has_no_component_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in packaged().items():
            monkeypatch.setenv(name, value)
        made = Components.of(load())
        assert made.fingerprint("r").components == made.versions
        assert made.fingerprint("r", "recall+literal+heads").components.keys() == {"literal", "heads"}
        assert str(made.fingerprint("r", "recall+literal")) == "r by recall+literal (literal literal-1-en)"


# A recaller in one place and one line of the registry: what adding one takes.


class ToySettings(ComponentSettings):
    """The section of the toy."""

    word: str | None = None


@dataclass
class Toy:
    """Finds the tag of a word wherever the word stands."""

    word: str
    name: str = "toy"

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        return [{"bees": 0.75} if self.word in text else {} for text in query.texts]


async def open_toy(section: ToySettings, _into: Surroundings) -> Part:
    return Part(recallers=(Toy(section.word or ""),))


TOY = ComponentOf(
    name="toy",
    settings=ToySettings,
    version=lambda section: None if section.word is None else f"toy-{section.word}",
    open=open_toy,
    lists=("toy",),
)


async def test_a_recaller_is_added_in_one_place_and_one_line_of_the_registry() -> None:
    given = settings({"toy": {"word": "zymurgy"}})
    async with assemble.in_process(given, plan=Plan(registry=(*REGISTRY, TOY))) as stack:
        tags = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea")]
        await filling.fill(stack.projection(), {"tags": tags, "exemplars": []}, lambda _: None)
        (result,) = await stack.tagger().tag([Content(id="c", text="A treatise on zymurgy")])
    assert isinstance(result, TaggedContent)
    assert result.versions.components == {"toy": "toy-zymurgy"}
    assert "toy" in result.path
    assert {tag.id: tag.evidence.scores for tag in result.tags}["bees"] == {"toy": 0.75}
    assert result.versions.calibration == "none"
    assert stack.fingerprint() == Fingerprint(RELEASE.name, "recall+toy", {"toy": "toy-zymurgy"})
