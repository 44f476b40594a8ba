"""Corpora: every format gives the same tags and contents, and errors name the line."""

import gzip
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.texts import text_of
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode, encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError
from tests.bus.harness import settings
from tests.conftest import Broker
from tests.support import Layout, Record, produce

TEXTS = [f"content number {number}" for number in range(120)]
LABELS = [(number % 3, 3) if number % 2 else (number % 3,) for number in range(120)]
NAMES = ["tea", "fishing", "economics", "books"]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def raw_json(folder: Path) -> None:
    with gzip.open(folder / "lbl.json.gz", "wt") as file:
        file.writelines(json.dumps({"uid": name[0], "title": name}) + "\n" for name in NAMES)
    for part in ("trn", "tst"):
        write(
            folder / f"{part}.json",
            [
                json.dumps({"uid": str(n), "title": text, "content": "", "target_ind": [*labels], "target_rel": [1.0]})
                for n, (text, labels) in enumerate(zip(TEXTS, LABELS, strict=True))
            ],
        )


def raw_lines(folder: Path) -> None:
    write(folder / "Y.txt", NAMES)
    for part in ("trn", "tst"):
        write(folder / f"{part}_X.txt", TEXTS)
        rows = [" ".join(f"{label}:1.0" for label in labels) for labels in LABELS]
        write(folder / f"{part}_X_Y.txt", [f"{len(TEXTS)} {len(NAMES)}", *rows])


def bags(folder: Path) -> None:
    words = sorted({word for text in TEXTS for word in text.split()})
    write(folder / "Xf.txt", words)
    write(folder / "Yf.txt", NAMES)
    rows = [
        f"{','.join(map(str, labels))} "
        + " ".join(f"{words.index(word)}:{3 - place}" for place, word in reversed(list(enumerate(text.split()))))
        for text, labels in zip(TEXTS, LABELS, strict=True)
    ]
    for name in ("train", "test"):
        write(folder / f"{name}.txt", [f"{len(rows)} {len(words)} {len(NAMES)}", *rows])


def all_contents(corpus: Corpus) -> list[tuple[str, tuple[str, ...]]]:
    return sorted((text_of(item), item.accepted) for split in ("train", "val") for item in corpus.exemplars(split))


@pytest.mark.parametrize("make", [raw_json, raw_lines, bags])
def test_forms_of_the_repository(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Given contents in a format, then texts and labels are read, and some are held out for validation."""
    make(tmp_path)
    corpus = open_corpus(str(tmp_path))
    expected = sorted((text, tuple(map(str, labels))) for text, labels in zip(TEXTS, LABELS, strict=True))
    assert [(tag.id, tag.name) for tag in corpus.tags()] == [(str(n), name) for n, name in enumerate(NAMES)]
    assert all_contents(corpus) == expected
    assert sorted((text_of(item), item.accepted) for item in corpus.exemplars("test")) == expected
    held = {item.id for item in corpus.exemplars("val")}
    assert 0 < len(held) < 20
    assert held == {item.id for item in open_corpus(str(tmp_path)).exemplars("val")}


@pytest.mark.parametrize(
    ("make", "file", "line", "message"),
    [
        (raw_json, "trn.json", "{", r"trn.json:2: '\{' is wrong, expected a JSON object"),
        (raw_json, "trn.json", '{"target_ind": ["1"]}', r"trn.json:2: target_ind: \['1'\] is wrong, expected a list"),
        (raw_lines, "trn_X_Y.txt", "x:1.0", r"trn_X_Y.txt:2: 'x' is wrong, expected column:value"),
        (bags, "train.txt", "0 a:b", r"train.txt:2: 'a:b' is wrong, expected feature:value"),
        (bags, "train.txt", "0 9999:1", r"train.txt:2: '9999:1' is wrong, expected feature:value"),
    ],
)
def test_a_wrong_line_is_named(
    make: Callable[[Path], None], file: str, line: str, message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    lines = (tmp_path / file).read_text().split("\n")
    (tmp_path / file).write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match=message):
        all_contents(open_corpus(str(tmp_path)))


def test_a_label_that_shows_nothing_is_named_by_its_number(tmp_path: Path) -> None:
    raw_lines(tmp_path)
    write(tmp_path / "Y.txt", ["\u200b\ufeff", *NAMES[1:]])
    assert [tag.name for tag in open_corpus(str(tmp_path)).tags()] == ["0", *NAMES[1:]]


def test_a_text_without_labels_beside_it_is_named(tmp_path: Path) -> None:
    raw_lines(tmp_path)
    lines = (tmp_path / "trn_X_Y.txt").read_text().split("\n")
    (tmp_path / "trn_X_Y.txt").write_text("\n".join(lines[:10]))
    with pytest.raises(UserError, match=r"trn_X.txt:10: a text without a row"):
        all_contents(open_corpus(str(tmp_path)))


def test_the_examples_are_a_corpus() -> None:
    """JSON lines: exemplars to train, calibration to validate, contents joined with their answers to test."""
    corpus = open_corpus(str(files("tagbus.examples")))
    known = {tag.id for tag in corpus.tags()}
    for split in ("train", "val", "test"):
        items = list(corpus.exemplars(split))
        assert items
        assert all(text_of(item) and set(item.accepted) <= known for item in items)


def test_a_wrong_line_of_json_is_named(tmp_path: Path) -> None:
    write(tmp_path / "tags.jsonl", ['{"id": "a", "name": "tea"}', '{"id": 7, "name": "tea"}'])
    with pytest.raises(UserError, match=r"tags.jsonl:2: id: 7 is wrong"):
        open_corpus(str(tmp_path)).tags()


def test_what_was_decided_for_a_replaced_tag_counts_for_its_successor(tmp_path: Path) -> None:
    tags = [
        Tag(id="old", name="old", replaced_by=("new",)),
        Tag(id="new", name="new"),
        Tag(id="split", name="split", replaced_by=("new", "other")),
        Tag(id="other", name="other"),
    ]
    titles = {"a": ("old", "new"), "b": ("split",), "c": ("split", "other"), "d": ("other", "strange")}
    exemplars = [Exemplar(id=key, title=key, accepted=accepted) for key, accepted in titles.items()]
    for name, events in (("tags", tags), ("exemplars", exemplars)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(encode, events)))
    corpus = open_corpus(str(tmp_path))

    assert [tag.id for tag in corpus.tags()] == ["new", "other"]
    found = {item.id: item.accepted for item in corpus.exemplars("train")}
    assert found == {"a": ("new",), "c": ("other",), "d": ("other", "strange")}


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no corpus: expected a folder with labels.tsv, tags.jsonl or lbl.json"):
        open_corpus(str(tmp_path))


def keyed(event: Tag | Exemplar) -> Record:
    record = encode_record(event)
    return record.key, record.value, record.headers


def topic_settings(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> Settings:
    return settings(kafka.address, topics({"tags": 2, "exemplars": 3}))


def test_topics_are_a_corpus(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> None:
    """The last record of a key counts; retired tags, withdrawn contents and machine decisions are left out."""
    given = topic_settings(kafka, topics)
    produce(
        kafka.address,
        given.topics.tags,
        [
            *map(keyed, (Tag(id="a", name="tea"), Tag(id="b", name="retired"), Tag(id="a", name="green tea"))),
            (b"b", None, ()),
        ],
    )
    many = [Exemplar(id=f"c{number}", text=f"text {number}", accepted=("a",)) for number in range(300)]
    changed = Exemplar(id="c1", text="text 1", accepted=("a", "x"))
    machine = Exemplar(id="c2", source="machine", text="text 2", accepted=("m",))
    gone = (keyed(many[3])[0], None, ())
    produce(
        kafka.address,
        given.topics.exemplars,
        [*map(keyed, many), keyed(changed), keyed(machine), gone],
    )
    corpus = open_corpus("topics", given)
    assert [tag.name for tag in corpus.tags()] == ["green tea"]
    splits = {split: {item.id: item for item in corpus.exemplars(split)} for split in ("train", "val", "test")}
    assert all(splits.values())
    together = {name: item for items in splits.values() for name, item in items.items()}
    assert sum(map(len, splits.values())) == len(together) == 299
    assert together["c1"].accepted == ("a", "x")
    assert together["c2"].accepted == ("a",)


@pytest.mark.parametrize("kind", ["labels.tsv", "tags.jsonl"])
def test_a_tag_that_comes_twice_is_refused(kind: str, tmp_path: Path) -> None:
    """Which name is meant cannot be known, and heads would have a row for it that nothing ever wrote."""
    tags = [("1", "bees"), ("2", "boats"), ("1", "cats")]
    lines = [f"{tag}\thttp://t/{tag}\t{name}" for tag, name in tags]
    write(tmp_path / kind, lines if kind == "labels.tsv" else [json.dumps({"id": t, "name": n}) for t, n in tags])
    with pytest.raises(UserError, match=rf"{kind}: tag '1' comes twice; ids must be unique"):
        open_corpus(str(tmp_path)).tags()


def test_a_byte_order_mark_is_no_part_of_a_number(tmp_path: Path) -> None:
    """Spreadsheets write one; the first tag would be lost."""
    for name, text in {"labels.tsv": "1\thttp://t/1\tbees\n", "train.tsv": "Hives\t1\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    corpus = open_corpus(str(tmp_path))
    assert [tag.id for tag in corpus.tags()] == ["1"]
    assert [(item.text, item.accepted) for item in corpus.exemplars("train")] == [("Hives", ("1",))]
