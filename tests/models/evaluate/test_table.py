"""The table on a cut of examples/: our rows through the tagger, baselines from stored predictions, and new tags."""

import json
from pathlib import Path

import numpy as np
import pytest

from tagbus.models.baselines.compare import compare
from tagbus.models.data.corpus import open_corpus
from tagbus.models.evaluate import measure, newtags, table
from tagbus.models.evaluate.raw import Raw
from tagbus.models.evaluate.rows import BASELINES, OURS
from tagbus.models.evaluate.systems import settings_of, with_memory
from tagbus.stream.app.components import packaged
from tagbus.stream.errors import UserError
from tagbus.stream.quality import Ranked

ISSUED = {"name", "p_at_1", "p_at_3", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece", "train_seconds"} | {
    "contents_per_second",
    "command",
}


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a baseline and three rows of ours, over two memories."""
    place: Path = tmp_path_factory.mktemp("models")
    compare("tfidf-neighbours", open_corpus(str(folder)), place / "tfidf-neighbours", "its command")
    table.command(
        str(folder),
        rows="lambda-0.5,tfidf-neighbours,untrained,untrained-hnsw",
        to=place / "models.json",
        models=place,
        cache=place / "cache",
        new_tags=None,
    )
    return place / "models.json"


def rows(report: Path) -> list[dict[str, object]]:
    found = json.loads(report.read_text())["rows"]
    assert isinstance(found, list)
    return found


def test_rows_come_in_the_order_of_the_table_with_every_figure(report: Path) -> None:
    found = rows(report)

    assert [row["name"] for row in found] == ["tfidf-neighbours", "untrained", "lambda-0.5", "untrained-hnsw"]
    for row in found:
        assert set(row) >= ISSUED
        low, high = row["intervals"]["p_at_1"]  # type: ignore[index]
        assert low <= row["p_at_1"] <= high  # type: ignore[operator]
    assert found[0]["command"] == "its command"
    assert "--rows untrained" in str(found[1]["command"])
    assert found[2]["settings"] == {"TAGBUS_RECALL__LAMBDA": "0.5"}


def test_the_figures_can_be_computed_again_from_the_raw_rows(report: Path, folder: Path) -> None:
    test = list(open_corpus(str(folder)).exemplars("test"))

    for row in rows(report):
        raw = Raw.load(report.parent / "raw" / "models" / f"{row['name']}.npz")
        assert raw.figures().items() <= row.items()
        assert list(raw.ids) == [item.id for item in test]


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_file_that_has_no_raw_rows_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fast.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"fast\.npz: .*expected a file of raw rows"):
        Raw.load(tmp_path / "fast.npz")


def test_a_row_says_what_ran(report: Path) -> None:
    ran = {str(row["name"]): row["ran"] for row in rows(report) if "ran" in row}

    assert ran["untrained"] == {
        "release": "minilm-l6-f16-1",
        "path": "recall",
        "components": {},
        "memory": "exact",
        "recall": {},
    }
    assert ran["lambda-0.5"] == {**ran["untrained"], "recall": {"lambda": 0.5}}  # type: ignore[dict-item]
    assert ran["untrained-hnsw"] == {**ran["untrained"], "memory": "hnsw"}  # type: ignore[dict-item]


def test_settings_of_the_caller_that_change_figures_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A row `untrained` is untrained whatever the environment has; how many threads it takes is the caller's."""
    row = next(row for row in OURS if row.name == "untrained")
    expected = settings_of(row, tmp_path)
    for name, value in {**packaged(), "TAGBUS_RECALL__LAMBDA": "0.9", "TAGBUS_MEMORY__KIND": "hnsw"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TAGBUS_TAGGER__LEAST_CONFIDENCE", "0.5")
    assert settings_of(row, tmp_path) == expected

    monkeypatch.setenv("TAGBUS_ENCODER__THREADS", "3")
    assert settings_of(row, tmp_path).encoder.threads == 3


def test_a_row_of_another_memory_gets_one_with_the_same_embeddings(report: Path) -> None:
    exact, indexed = (row for row in rows(report) if str(row["name"]).startswith("untrained"))

    assert indexed["settings"] == {"TAGBUS_MEMORY__KIND": "hnsw"}
    # With so few titles both searches are exact.
    assert [indexed[name] for name in ("p_at_5", "ndcg_at_5", "ece")] == [
        exact[name] for name in ("p_at_5", "ndcg_at_5", "ece")
    ]
    assert len(list((report.parent / "cache").glob("*/exemplars/hnsw.json"))) == 1


def test_the_table_stands_beside_it_as_markdown_and_pictures(report: Path) -> None:
    page = report.with_suffix(".md").read_text()

    assert "| untrained | " in page
    assert "±" in page
    assert "- untrained: minilm-l6-f16-1\n" in page
    assert report.with_name("models-reliability.png").read_bytes().startswith(b"\x89PNG")


def test_rows_that_are_kept_are_not_measured_again(report: Path, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "models.json"
    kept.write_text(report.read_text())

    table.command(str(folder), to=kept, models=tmp_path, cache=tmp_path, new_tags=None)

    assert rows(kept) == rows(report)


def test_learning_curves_are_drawn_from_the_logs_of_training(report: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "heads").mkdir()
    lines = [{"seconds": step, "loss": 5 - step, "p_at_1": 10 * step} for step in range(3)]
    (tmp_path / "heads" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"seconds": 3, "lo')

    table.command(str(folder), to=tmp_path / "models.json", models=tmp_path, cache=tmp_path, new_tags=None)

    assert (tmp_path / "models-learning.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "instances"), [("no-instances", 0), ("lambda-0.5", 240)])
async def test_without_instances_none_is_encoded(
    name: str, instances: int, folder: Path, report: Path, tmp_path: Path
) -> None:
    row = next(row for row in OURS if row.name == name)
    corpus = open_corpus(str(folder))
    cache = tmp_path / "cache" if not instances else report.parent / "cache"
    async with with_memory(settings_of(row, tmp_path), corpus, cache) as stack:
        assert await stack.memory.exemplars.count() == instances
        assert await stack.memory.tags.count() == len(corpus.tags())


async def test_a_new_tag_is_found_better_with_exemplars(folder: Path, report: Path, tmp_path: Path) -> None:
    corpus = open_corpus(str(folder))
    train = [tag for item in corpus.exemplars("train") for tag in item.accepted]
    test = [tag for item in corpus.exemplars("test") for tag in item.accepted]
    new = sorted(sorted(set(test)), key=lambda tag: -train.count(tag))[:5]
    (tmp_path / "new.txt").write_text("\n".join(new) + "\n")

    found = await newtags.measure(corpus, tmp_path / "new.txt", tmp_path, report.parent / "cache")

    assert found["tags"] == 5
    row = found["rows"][0]  # type: ignore[index]
    assert row["name"] == "untrained"
    assert row["r_at_10_after_0"] <= row["r_at_10_after_20"]
    assert 0 < row["known_r_at_10_after_0"] <= 100
    # No models are trained here, so the row of the trained pipeline is skipped.
    assert "ranker" not in {row["name"] for row in found["rows"]}  # type: ignore[attr-defined]
    first = f"{row['r_at_10_after_0']} ({row['known_r_at_10_after_0']})"
    assert f"| untrained | {first} |" in newtags.markdown(found)


def test_rows_of_new_tags_that_are_not_measured_again_are_kept() -> None:
    kept = {"tags": 3, "contents": 9, "rows": [{"name": "untrained", "a": 1}, {"name": "full", "a": 1}]}
    found = {"tags": 3, "contents": 9, "rows": [{"name": "fast", "a": 2}, {"name": "untrained", "a": 2}]}

    together = newtags.joined(kept, found)

    assert together["rows"] == [{"name": "untrained", "a": 2}, {"name": "full", "a": 1}, {"name": "fast", "a": 2}]
    assert newtags.joined({**kept, "contents": 8}, found)["rows"] == [found["rows"][1], found["rows"][0]]  # type: ignore[index]
    assert newtags.joined(None, found)["tags"] == 3


def test_exemplars_of_new_tags_come_back_one_by_one(folder: Path) -> None:
    corpus = open_corpus(str(folder))
    train = list(corpus.exemplars("train"))
    accepted = [tag for item in train for tag in item.accepted]
    tag = max(set(accepted), key=accepted.count)

    steps = newtags.first_exemplars(corpus, frozenset({tag}))

    whole = {item.id: item for item in train}
    for step, changed in zip(newtags.STEPS, steps, strict=True):
        assert len(changed) == min(step, accepted.count(tag))
        assert all(tag in item.accepted and item.accepted == whole[name].accepted for name, item in changed.items())


@pytest.mark.parametrize(("name", "message"), [("best", "best' is no row"), ("bonsai", "is missing")])
def test_a_row_that_cannot_be_measured_is_named(name: str, message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        table.command(str(folder), rows=name, to=tmp_path / "m.json", models=tmp_path, cache=tmp_path, new_tags=None)


def test_every_row_has_settings_that_the_service_knows(tmp_path: Path) -> None:
    names = [row.name for row in (*BASELINES, *OURS)]

    assert len(set(names)) == len(names)
    for row in OURS:
        assert settings_of(row, tmp_path).tagger.tags == 10


def test_figures_of_a_perfect_list_are_full(folder: Path) -> None:
    test_set = measure.EvaluationSet.of(open_corpus(str(folder)))
    truth = test_set.truth(test_set.test)
    indices = np.full((len(truth), 10), -1, np.int64)
    for row, tags in enumerate(truth):
        indices[row, : len(tags)] = tags

    found = test_set.raw(Ranked(indices, np.full(indices.shape, 0.9))).figures()

    assert (found["p_at_1"], found["r_at_10"], found["coverage_at_1"], found["acc_at_3"]) == (100, 100, 100, 100)
    assert found["ece"] == pytest.approx(0.1)
