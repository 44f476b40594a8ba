"""`tagbus train labeltree`: Omikuji's label trees over bags of words, a recaller of the tagger.

    tagbus train labeltree CORPUS --out FOLDER

Bonsai (Khandagale et al. 2020, Machine Learning 109): shallow, wide trees over the tags with a linear classifier at
each node. Finds tags by words that neighbours and heads miss. On its own, on plain TF-IDF, it is a baseline
(`models/baselines/trees.py`).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import omikuji
import typer

from tagbus.models.data.corpus import Corpus, open_corpus, without
from tagbus.models.data.texts import text_of
from tagbus.models.journal import JOURNAL, Journal
from tagbus.stream.app import console
from tagbus.stream.app.places.files import chunks
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import UserError
from tagbus.stream.recall import labeltree
from tagbus.stream.recall.labeltree import FOREST, Manifest, aside
from tagbus.stream.recall.words import Bags, Vocabulary

BEST: Final = 60
BEAM: Final = 10
CHUNK: Final = 4096


def command(
    corpus: Annotated[str, typer.Argument(help="folder with train contents, or `topics`")],
    to: Annotated[Path, typer.Option("--out", help="folder of the trees: labeltree.json, words.json, forest/")],
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    words: Annotated[int, typer.Option(min=1, help="least contents with a word")] = 2,
    bigrams: Annotated[int, typer.Option(min=1, help="least contents with a bigram")] = 4,
    terms: Annotated[int, typer.Option(min=1, help="most words and bigrams; the most frequent are kept")] = 300_000,
    trees: Annotated[int, typer.Option(min=1, max=100)] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Train label trees on the training contents of CORPUS."""
    place = without(open_corpus(corpus), left_out)
    vocabulary = Vocabulary.learn((text_of(item) for item in place.exemplars("train")), words, bigrams, terms)
    if not vocabulary.terms:
        raise UserError(f"no word is in {words} training contents: there is nothing to train on")
    manifest = train(place, vocabulary, to, trees, threads)
    console.print_line(f"{to}: {manifest.name}, {len(manifest.tags)} tags, {len(vocabulary.terms)} terms")


def train(corpus: Corpus, vocabulary: Vocabulary, to: Path, trees: int, threads: int) -> Manifest:
    """Train and write the folder. Raises UserError if no training content has a known word and a tag."""
    journal = Journal(to / JOURNAL)
    carried = {tag for item in corpus.exemplars("train") for tag in item.accepted}
    tags = tuple(tag.id for tag in corpus.tags() if tag.id in carried)
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=to) as spare:
        data, made = Path(spare, "train.txt"), Path(spare, FOREST)
        contents = write_sparse(data, corpus.exemplars("train"), vocabulary, tags)
        if not contents:
            raise UserError(
                "no training content has a known word and a tag of the taxonomy: there is nothing to train on"
            )
        console.say(f"training {trees} trees on {contents} contents, {len(tags)} tags")
        with aside():
            omikuji.Model.train_on_data(str(data), _parameters(trees), threads).save(str(made))
        files = {path.name: sha256(path.read_bytes()) for path in made.iterdir()}
        shutil.rmtree(to / FOREST, ignore_errors=True)
        made.rename(to / FOREST)
    words = vocabulary.dump()
    manifest = Manifest(
        name=labeltree.name_of(files, words, tags),
        best=min(BEST, len(tags)),
        beam=BEAM,
        words_sha256=sha256(words),
        files=files,
        fitted_on=contents,
        tags=tags,
    )
    about = manifest.model_dump_json(indent=2).encode() + b"\n"
    for name, content in ((labeltree.WORDS, words), (labeltree.MANIFEST, about)):
        part = to / f".{name}.{os.getpid()}.part"
        part.write_bytes(content)
        part.replace(to / name)
    journal.write({"name": manifest.name}, contents=contents)
    return manifest


def _parameters(trees: int) -> object:
    """Bonsai's: 100 children per node, at most three levels."""
    parameters = omikuji.Model.default_hyper_param()
    for name, value in {"n_trees": trees, "cluster_balanced": False, "cluster_k": 100, "max_depth": 3}.items():
        setattr(parameters, name, value)
    return parameters


def write_sparse(path: Path, items: Iterator[Exemplar], vocabulary: Vocabulary, tags: tuple[str, ...]) -> int:
    """Write the sparse format of the Extreme Classification Repository. Returns the number of contents.

    Contents without a known word or without a tag are left out.
    """
    numbers = {tag: number for number, tag in enumerate(tags)}
    kept = 0
    with path.with_suffix(".rows").open("w", encoding="ascii") as rows:
        for some in chunks(items, CHUNK):
            for item, words in zip(some, _rows(vocabulary.bags(map(text_of, some))), strict=True):
                right = sorted({numbers[tag] for tag in item.accepted if tag in numbers})
                if words and right:
                    rows.write(f"{','.join(map(str, right))} {words}\n")
                    kept += 1
    with path.open("wb") as file, path.with_suffix(".rows").open("rb") as body:
        file.write(f"{kept} {len(vocabulary.frequencies)} {len(tags)}\n".encode())
        shutil.copyfileobj(body, file)
    return kept


def _rows(bags: Bags) -> Iterator[str]:
    for start, length in zip(bags.starts.tolist(), bags.lengths.tolist(), strict=True):
        some = slice(start, start + length)
        pairs = sorted(zip(bags.terms[some].tolist(), bags.weights[some].tolist(), strict=True))
        yield " ".join(f"{term}:{weight:.6g}" for term, weight in pairs)
