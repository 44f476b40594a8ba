"""Training of label trees: Omikuji's input, and the files of the folder."""

from pathlib import Path

import numpy as np
import pytest

from tagbus.models.data.corpus import open_corpus
from tagbus.models.data.texts import text_of
from tagbus.models.train.labeltree import command, write_sparse
from tagbus.stream.errors import UserError
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.labeltree import LabelTreeRecall
from tagbus.stream.recall.words import Vocabulary
from tests.models.toy import journal, toy_corpus


def trained(to: Path, *, corpus: Path, without: Path | None = None) -> LabelTreeRecall:
    command(str(corpus), to, without, words=1, bigrams=1000, terms=100, trees=3, threads=1)
    return LabelTreeRecall.load(to)


async def test_a_toy_corpus_is_learnt_to_its_optimum(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "corpus")

    recaller = trained(tmp_path / "out", corpus=corpus)

    held = list(open_corpus(str(corpus)).exemplars("val"))
    found = await recaller.recall(Query([], [text_of(item) for item in held], np.zeros((0, 1), np.float32)))
    for item, one in zip(held, found, strict=True):
        assert set(list(one)[: len(item.accepted)]) == set(item.accepted)
    assert journal(tmp_path / "out")[-1]["contents"] == 130


def test_what_omikuji_reads_is_what_stands_in_the_contents(tmp_path: Path) -> None:
    corpus = open_corpus(str(toy_corpus(tmp_path / "corpus")))
    vocabulary = Vocabulary.learn((text_of(item) for item in corpus.exemplars("train")), 1, 1000)
    tags = tuple(tag.id for tag in corpus.tags())

    # One topic is left out: contents with no other are left out too.
    kept = write_sparse(tmp_path / "train.txt", corpus.exemplars("train"), vocabulary, tags[1:])

    head, *rows = (tmp_path / "train.txt").read_text().splitlines()
    items = [item for item in corpus.exemplars("train") if set(item.accepted) - {tags[0]}]
    assert kept == len(items) < 130
    assert head == f"{kept} {len(vocabulary.frequencies)} {len(tags) - 1}"
    for item, row in zip(items, rows, strict=True):
        right, *pairs = row.split(" ")
        assert [tags[1:][int(number)] for number in right.split(",")] == [t for t in tags[1:] if t in item.accepted]
        terms = [int(pair.split(":")[0]) for pair in pairs]
        assert terms == sorted(set(terms))
        assert sum(float(pair.split(":")[1]) ** 2 for pair in pairs) == pytest.approx(1, abs=1e-4)


def test_tags_are_left_out(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "corpus")
    (tmp_path / "out.txt").write_text("music\n")

    recaller = trained(tmp_path / "out", corpus=corpus, without=tmp_path / "out.txt")

    assert "music" not in recaller.manifest.tags
    assert len(recaller.manifest.tags) == 5


def test_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "corpus")

    with pytest.raises(UserError, match="there is nothing to train on"):
        command(str(corpus), tmp_path / "out", None, words=1000, bigrams=1000, terms=100, trees=3, threads=1)
