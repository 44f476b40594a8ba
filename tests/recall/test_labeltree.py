"""Label trees as the tagger runs them: Omikuji's own trees, trained here on contents of three words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("omikuji", reason="label trees are Omikuji's, of the extra `trees`")

from tagbus.models.train import labeltree as training
from tagbus.stream.app.components import Components
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.rank import trees
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.labeltree import FOREST, MANIFEST, WORDS, LabelTreeRecall
from tagbus.stream.recall.words import Vocabulary

NAMES = ("fire", "soil", "zebra")
NO_VECTORS = np.zeros((0, 4), np.float32)


class Corpus:
    """Each content has one of three words, which names its tag, and an uninformative word."""

    def tags(self) -> list[Tag]:
        return [Tag(id=f"t-{name}", name=name) for name in (*NAMES, "never")]

    def exemplars(self, split: str) -> list[Exemplar]:
        assert split == "train"
        return [
            Exemplar(id=f"{number}", source="people", text=f"{name} word{number % 5}", accepted=(f"t-{name}", "t-gone"))
            for number, name in enumerate(NAMES * 40)
        ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labeltree")
    corpus = Corpus()
    vocabulary = Vocabulary.learn(item.text or "" for item in corpus.exemplars("train"))
    training.train(corpus, vocabulary, folder, trees=2, threads=1)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "labeltree"))


async def recall(folder: Path, texts: list[str]) -> list[dict[str, float]]:
    return [dict(one) for one in await LabelTreeRecall.load(folder).recall(Query([], texts, NO_VECTORS))]


async def test_a_content_gets_the_tag_of_its_word_first(folder: Path) -> None:
    found = await recall(folder, [f"Some {name}, and nothing else" for name in NAMES])

    assert [next(iter(one)) for one in found] == ["t-fire", "t-soil", "t-zebra"]
    assert all(1 >= score >= 0 for one in found for score in one.values())
    assert all(list(one.values()) == sorted(one.values(), reverse=True) for one in found)


async def test_a_tag_that_no_content_carried_is_not_known(folder: Path) -> None:
    manifest = LabelTreeRecall.load(folder).manifest

    assert manifest.tags == ("t-fire", "t-soil", "t-zebra")
    assert manifest.fitted_on == 120


async def test_a_text_without_a_known_word_gets_nothing(folder: Path) -> None:
    assert await recall(folder, ["", "森林", "\ud800", "unheard of"]) == [{}, {}, {}, {}]


async def test_the_rest_of_the_batch_changes_nothing(folder: Path) -> None:
    texts = ["fire and soil", "zebra", "soil word1"]

    assert await recall(folder, texts) == [(await recall(folder, [text]))[0] for text in texts]


def test_the_settings_switch_them_on(folder: Path) -> None:
    components = Components.of(Settings(components={"labeltree": {"folder": str(folder)}}))

    assert components.versions == {"labeltree": LabelTreeRecall.load(folder).manifest.name}
    assert components.fingerprint("r1").components == components.versions
    assert components.fingerprint("r1").path == "recall+labeltree"
    assert trees.over("r1", components.lists, components.versions).lists == ("names", "labeltree")


def test_omikuji_does_not_speak_where_results_go(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It logs what it loads to standard output, which `tagbus tag` fills with results."""
    LabelTreeRecall.load(folder)
    print("a result")
    LabelTreeRecall.load(folder)

    found = capfd.readouterr()
    assert found.out == "a result\n"
    assert "omikuji" in found.err


def test_it_refuses_a_file_that_was_changed(folder: Path) -> None:
    (folder / WORDS).write_bytes((folder / WORDS).read_bytes() + b" ")

    with pytest.raises(ReleaseMismatch, match=r"words\.json"):
        LabelTreeRecall.load(folder)


def test_it_refuses_a_tree_that_was_changed(folder: Path) -> None:
    tree = next((folder / FOREST).glob("*.cbor"))
    tree.write_bytes(tree.read_bytes() + b" ")

    with pytest.raises(ReleaseMismatch, match=tree.name):
        LabelTreeRecall.load(folder)


def test_it_refuses_a_folder_that_holds_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tagbus train labeltree"):
        LabelTreeRecall.load(tmp_path)


@pytest.mark.parametrize("name", ["../x.cbor", "/etc/tree.cbor", "tree.so"])
def test_it_refuses_files_beyond_its_folder(folder: Path, name: str) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    about["files"] = {name: next(iter(about["files"].values()))}
    (folder / MANIFEST).write_text(json.dumps(about))

    with pytest.raises(UserError, match="files"):
        LabelTreeRecall.load(folder)
