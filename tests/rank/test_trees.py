"""The ranker's folder: its files are verified, and a mismatch is refused with both names."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.rank import trees
from tagbus.stream.rank.candidates import Facts
from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.named import Named
from tagbus.stream.rank.features.tables import Statistics, TableName, columns
from tagbus.stream.rank.trees import (
    CROSS,
    MANIFEST,
    MODEL,
    SECOND_STAGE,
    TABLES,
    Manifest,
    Over,
    TreeRanker,
    pack,
    rarity,
    unpack,
)
from tagbus.stream.recall.pool import NAMES, Ballots, Listed, Pool

# One tree, votes > 0.5 gives 2 and the rest 1: the protobuf of an ONNX graph, made by hand so that the service's tests
# need no training library.
LISTS = (NAMES, "heads")
HEADS = {"heads": "heads-1"}
OVER = Over("r1", LISTS, HEADS)
KNOWN = ["a", "b", "c"]
COUNTED = Tables(np.array([50, 3, 0]), np.array([1, 3]), np.array([2, 2]), 100)


def stump(names: Sequence[str] = columns(LISTS), split: str = "heads_score") -> bytes:
    """A tree of one split: 2 where that column is above 0.5 and 1 elsewhere, NaN goes to 1."""
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra train, makes the tree that the ranker runs")
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor",
        [trees.INPUT],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[names.index(split), 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "stump",
        [onnx.helper.make_tensor_value_info(trees.INPUT, float_, ["m", len(names)])],
        [onnx.helper.make_tensor_value_info("scores", float_, ["m", 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 9
    return bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tables = stump(), pack(Statistics(COUNTED), KNOWN)
    manifest = Manifest(
        name="ranker-0a1b2c3d",
        release="r1",
        components=HEADS,
        lists=LISTS,
        columns=columns(LISTS),
        names=50,
        neighbours=100,
        listed=60,
        voted=60,
        kept=50,
        propensity=0.0,
        model_sha256=sha256(model),
        tables_sha256=sha256(tables),
        fitted_on=10,
        trees=1,
    )
    (tmp_path / MODEL).write_bytes(model)
    (tmp_path / TABLES).write_bytes(tables)
    (tmp_path / MANIFEST).write_text(manifest.model_dump_json())
    return tmp_path


def load(folder: Path) -> TreeRanker:
    return TreeRanker.load(folder, OVER)


def change(folder: Path, **fields: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def pool(heads: dict[int, float]) -> Pool:
    none = np.zeros(0, np.int64)
    ordered = sorted(heads.items(), key=lambda pair: -pair[1])
    lists = {
        NAMES: Listed(none, none, np.zeros(0, np.float32)),
        "heads": Listed(
            np.zeros(len(heads), np.int64),
            np.array([tag for tag, _ in ordered], np.int64),
            np.array([score for _, score in ordered], np.float32),
        ),
    }
    empty = np.zeros(0, np.float32)
    return Pool(["a text"], 3, lists, Ballots(none, empty, np.zeros(0, np.bool_), none, none))


FACTS = Facts(np.arange(3), np.full(3, 5), np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_it_scores_what_it_draws(folder: Path) -> None:
    ranker = load(folder)
    full = pool({0: 0.25, 1: 0.75})

    drawn = ranker.draw(full)
    rated = ranker.rate(full, drawn, FACTS)

    assert drawn.tags.tolist() == [0, 1]
    assert rated.scores.tolist() == [1.0, 2.0]
    assert rated.features.shape == (2, len(ranker.columns))
    assert ranker.name == "ranker-0a1b2c3d"
    assert list(ranker.known) == KNOWN


def test_a_named_feature_table_is_read_after_the_others(folder: Path) -> None:
    """Tag 1 is right for half of the contents that name it, tag 0 for next to none."""
    wider = columns(LISTS, [TableName.NAMED])
    model = stump(wider, "named_right")
    tables = pack(Statistics(COUNTED, [Named(np.array([90, 90, 0]), np.array([0, 80, 0]))]), KNOWN)
    (folder / MODEL).write_bytes(model)
    (folder / TABLES).write_bytes(tables)
    change(folder, tables=["named"], columns=wider, model_sha256=sha256(model), tables_sha256=sha256(tables))
    ranker, full = load(folder), pool({0: 0.75, 1: 0.25})

    rated = ranker.rate(full, ranker.draw(full), FACTS)

    assert rated.scores.tolist() == [1.0, 2.0]
    assert rated.features.shape == (2, len(wider))
    assert tuple(ranker.columns) == wider


def test_nothing_drawn_is_nothing_scored(folder: Path) -> None:
    ranker, full = load(folder), pool({})

    assert ranker.rate(full, ranker.draw(full), FACTS).scores.shape == (0,)


def test_the_exponent_lifts_rare_tags(folder: Path) -> None:
    change(folder, propensity=0.5)
    ranker, full = load(folder), pool({0: 0.25, 1: 0.25, 2: 0.25})

    scores = ranker.rate(full, ranker.draw(full), FACTS).scores

    assert scores[0] < scores[1] < scores[2]
    assert scores - 1 == pytest.approx(0.5 * rarity(COUNTED, np.arange(3)))


def test_rarity_is_minus_log_of_the_propensity() -> None:
    scale = (np.log(100) - 1) * 2.5**0.55
    expected = [-np.log(1 / (1 + scale * (count + 1.5) ** -0.55)) for count in (50, 3, 0, 0)]

    assert rarity(COUNTED, np.array([0, 1, 2, 7])) == pytest.approx(expected, rel=1e-5)


def test_tables_come_back_as_they_were_packed() -> None:
    found, known = unpack(Path("tables.npz"), pack(Statistics(COUNTED), KNOWN))

    assert known == KNOWN
    assert found.tables.contents == COUNTED.contents
    assert np.array_equal(found.tables.pairs, COUNTED.pairs)
    assert found.tables.counts.tolist() == COUNTED.counts.tolist()


@pytest.mark.parametrize(
    ("over", "names"),
    [
        (Over("r2", LISTS, HEADS), ["release", "r1", "r2"]),
        (Over("r1", LISTS, {"heads": "heads-2"}), ["heads", "heads-1", "heads-2"]),
        (Over("r1"), ["heads"]),
        (Over("r1", (*LISTS, "literal"), HEADS), ["lists", "literal"]),
        (Over("r1", (*LISTS, "labeltree"), HEADS | {"labeltree": "labeltree-1"}), ["labeltree", "labeltree-1"]),
    ],
)
def test_it_refuses_what_it_was_not_trained_over(folder: Path, over: Over, names: list[str]) -> None:
    with pytest.raises(ReleaseMismatch) as error:
        TreeRanker.load(folder, over)

    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("name", [MODEL, TABLES])
def test_it_refuses_a_file_that_was_changed(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    with pytest.raises(ReleaseMismatch, match=name):
        load(folder)


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
        (lambda folder: (folder / MODEL).unlink(), MODEL),
        (lambda folder: (folder / MANIFEST).write_text("{"), MANIFEST),
        (lambda folder: change(folder, kept=0), "kept"),
        (lambda folder: change(folder, more=1), "more"),
        (lambda folder: change(folder, propensity="much"), "much"),
        (lambda folder: change(folder, tables=["moods"]), "'broader', 'named' or 'terms'"),
        (
            lambda folder: change(folder, tables=["terms"], columns=columns(LISTS, [TableName.TERMS])),
            r"terms\.hashes is not a file.*tagbus train ranker",
        ),
    ],
)
def test_a_broken_folder_is_a_clear_error(folder: Path, break_: Callable[[Path], object], words: str) -> None:
    break_(folder)

    with pytest.raises(UserError, match=words):
        load(folder)


def test_columns_of_another_version_are_refused(folder: Path) -> None:
    change(folder, columns=[*columns(LISTS)[1:], "mood"])

    with pytest.raises(ReleaseMismatch, match="columns"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_tables_that_are_none_are_a_clear_error(content: bytes) -> None:
    with pytest.raises(UserError, match=TABLES):
        unpack(Path(TABLES), content)


READS = "cross_encoder-0a1b2c3d"
BESIDE = Over("r1", LISTS, HEADS | {"cross_encoder": READS})


@pytest.fixture
def twice(folder: Path) -> Path:
    """A ranker of two stages; the second splits by the cross-encoder's scores of the two best."""
    model = stump((*columns(LISTS), CROSS), CROSS)
    (folder / SECOND_STAGE).write_bytes(model)
    read = {"cross_encoder": READS}
    about = {"components": read, "top": 2, "propensity": 0.0, "model_sha256": sha256(model), "trees": 1}
    change(folder, second_stage=about)
    return folder


def test_the_best_of_the_first_pass_are_read_and_the_second_orders_all(twice: Path) -> None:
    ranker = TreeRanker.load(twice, BESIDE)
    full = pool({0: 0.25, 1: 0.75, 2: 0.6})
    drawn = ranker.draw(full)
    rated = ranker.rate(full, drawn, FACTS)
    assert rated.scores.tolist() == [1.0, 2.0, 2.0]
    assert ranker.second_stage is not None

    asked = ranker.second_stage.asked(drawn.rows, drawn.tags, rated)
    again = ranker.second_stage.rate(drawn.tags, rated, asked, np.array([0.0, 1.0], np.float32))

    assert [KNOWN[tag] for tag in drawn.tags[asked]] == ["b", "c"]
    assert again.features[:, -1].tolist() == [pytest.approx(np.nan, nan_ok=True), 0.0, 1.0]
    assert np.array_equal(again.features[:, :-1], rated.features, equal_nan=True)
    assert again.scores.tolist() == [1.0, 1.0, 2.0]
    assert ranker.second_stage.columns[-1] == CROSS
    assert again.features.shape[1] == len(ranker.second_stage.columns)


def test_nothing_drawn_is_nothing_read(twice: Path) -> None:
    ranker = TreeRanker.load(twice, BESIDE)
    full = pool({})
    drawn = ranker.draw(full)
    assert ranker.second_stage is not None
    rated = ranker.rate(full, drawn, FACTS)

    asked = ranker.second_stage.asked(drawn.rows, drawn.tags, rated)
    again = ranker.second_stage.rate(drawn.tags, rated, asked, np.zeros(0, np.float32))

    assert len(asked) == 0
    assert (again.scores.shape, again.features.shape) == ((0,), (0, len(ranker.second_stage.columns)))


def test_a_ranker_that_was_trained_with_a_cross_encoder_is_refused_without_it(twice: Path) -> None:
    with pytest.raises(ReleaseMismatch, match="trained over cross_encoder 'cross_encoder-0a1b2c3d', but this is None"):
        load(twice)


def test_a_ranker_that_was_trained_with_another_cross_encoder_is_refused(twice: Path) -> None:
    with pytest.raises(ReleaseMismatch, match="but this is 'cross_encoder-00000000'"):
        TreeRanker.load(twice, Over("r1", LISTS, HEADS | {"cross_encoder": "cross_encoder-00000000"}))


def test_a_ranker_that_was_trained_without_one_is_refused_with_it(folder: Path) -> None:
    with pytest.raises(ReleaseMismatch, match="trained over cross_encoder None, but this is 'cross_encoder-0a1b2c3d'"):
        TreeRanker.load(folder, BESIDE)


@pytest.mark.parametrize("break_", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_the_second_trees_are_verified(twice: Path, break_: Callable[[Path], object]) -> None:
    break_(twice / SECOND_STAGE)

    with pytest.raises((UserError, ReleaseMismatch), match=SECOND_STAGE):
        TreeRanker.load(twice, BESIDE)
