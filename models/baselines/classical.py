"""Classical taggers that ours is compared with, trained on the same contents.

    .cache/baselines/bin/python -m tagbus.models.baselines bonsai ../shared/data/yso-titles --out .cache/models

They are of the extra `baselines`, in an environment of their own (`make baselines`): Annif holds numpy and click at
other versions. What each finds for the validation and test contents goes to OUT/NAME, where `tagbus evaluate-models`
takes it from: `val.npz` and `test.npz` (tag numbers and scores of the 60 best), `run.json` (what it cost).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Protocol, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix

from tagbus.models.baselines.annif import AnnifOmikuji
from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import text_of
from tagbus.models.data.truth import Truth, numbers_of
from tagbus.stream.app import console
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError, shorten

BEST: Final = 60
# A word that stands in one title alone tells nothing about others.
LEAST_TITLES: Final = 2
RUN: Final = "run.json"

Sparse: TypeAlias = "csr_array"
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Titles:
    """Contents to train on: their texts and right tags, as numbers below `tags`."""

    texts: Sequence[str]
    truth: Truth
    tags: int


class Baseline(Protocol):
    """A tagger that is trained once and knows no other tags afterwards."""

    def train(self, titles: Titles) -> None:
        """Learn from these contents."""
        ...

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """Tag numbers int64 [n, best], best first, -1 where there are no more, and their scores float64 [n, best]."""
        ...


class TfIdf:
    """Words of a text, weighted by how rare they are, each row of length 1; float32 [n, words]."""

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._made = TfidfVectorizer(min_df=LEAST_TITLES, dtype=np.float32)

    def learn(self, texts: Sequence[str]) -> Sparse:
        """The features of the texts that the words are taken from."""
        return csr_array(self._made.fit_transform(texts))

    def of(self, texts: Sequence[str]) -> Sparse:
        """The features of other texts."""
        return csr_array(self._made.transform(texts))


class Omikuji:
    """Partitioned label trees: Parabel (Prabhu et al. 2018, WWW) and Bonsai (Khandagale et al. 2020), three each."""

    def __init__(self, **settings: bool | int) -> None:
        self._settings = settings
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """As the protocol says, on one thread."""
        import omikuji

        parameters = omikuji.Model.default_hyper_param()
        for name, value in self._settings.items():
            setattr(parameters, name, value)
        with TemporaryDirectory() as folder:
            path = Path(folder, "train.txt")
            write_xmc(path, self._words.learn(titles.texts), titles)
            self._model = omikuji.Model.train_on_data(str(path), parameters, 1)
        self._model.init_prediction_thread_pool(1)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """As the protocol says."""
        features = self._words.of(texts)
        indices, scores = empty(len(texts), best)
        for row, (words, weights) in enumerate(rows_of(features)):
            for column, (tag, score) in enumerate(self._model.predict(zip(words, weights, strict=True), top_k=best)):
                indices[row, column], scores[row, column] = tag, score
        return indices, scores


class XrLinear:
    """PECOS XR-Linear (Yu et al. 2022, JMLR): a tree over the tags' mean contents, a linear classifier at each node."""

    def __init__(self) -> None:
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """As the protocol says, on one thread."""
        import scipy.sparse

        # pecos 1.2.8 asks for a module of scipy's that has moved.
        scipy.sparse.sputils = scipy.sparse._sputils
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

        # PECOS knows scipy's matrices, not its arrays.
        words = csr_matrix(self._words.learn(titles.texts))
        right = csr_matrix(matrix_of(titles.truth, titles.tags))
        clusters = Indexer.gen(LabelEmbeddingFactory.create(right, words, method="pifa"), threads=1)
        self._model = XLinearModel.train(words, right.tocsc(), C=clusters, threads=1)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """As the protocol says."""
        words = csr_matrix(self._words.of(texts))
        return from_rows(self._model.predict(words, only_topk=best, beam_size=20, threads=1), best)


class Neighbours:
    """The tags of the nearest titles by TF-IDF, each title's vote weighted by a softmax of its cosine."""

    def __init__(self, near: int = 100, tau: float = 0.1) -> None:
        self._near = near
        self._tau = tau
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """As the protocol says: nothing but an index is made."""
        self._titles = csr_array(self._words.learn(titles.texts).T)
        self._right = matrix_of(titles.truth, titles.tags)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """As the protocol says."""
        # 64 rows of cosines to 328,152 titles are 84 MB.
        parts = [self._some(texts[start : start + 64], best) for start in range(0, len(texts), 64)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _some(self, texts: Sequence[str], best: int) -> Found:
        cosines = (self._words.of(texts) @ self._titles).toarray()
        near = min(self._near, cosines.shape[1])
        nearest = np.argpartition(-cosines, near - 1, axis=1)[:, :near]
        likeness = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / self._tau)
        weights /= weights.sum(axis=1, keepdims=True)
        starts = np.arange(0, nearest.size + 1, near)
        votes = csr_array((weights.ravel(), nearest.ravel(), starts), shape=cosines.shape)
        return from_rows(votes @ self._right, best)


# Made with the folder of what is found, where one keeps its model. Bonsai's trees are wide and shallow;
# Parabel's, which Omikuji has by default, are balanced and binary.
BASELINES: Final[Mapping[str, Callable[[Path], Baseline]]] = {
    "parabel": lambda _: Omikuji(),
    "bonsai": lambda _: Omikuji(cluster_balanced=False, cluster_k=100, max_depth=3),
    "xr-linear": lambda _: XrLinear(),
    "tfidf-neighbours": lambda _: Neighbours(),
    "annif-bonsai": lambda folder: AnnifOmikuji(folder / "project"),
}


def matrix_of(truth: Truth, tags: int) -> Sparse:
    """Which tags are right, float32 [n, tags], ones where they are."""
    return csr_array((np.ones(len(truth.tags), np.float32), truth.tags, truth.starts), shape=(len(truth), tags))


def empty(contents: int, best: int) -> Found:
    """Where nothing is found yet."""
    return np.full((contents, best), -1, np.int64), np.zeros((contents, best))


def rows_of(features: Sparse) -> list[tuple[list[int], list[float]]]:
    """The columns and values of each row."""
    bounds = features.indptr.tolist()
    columns, values = features.indices.tolist(), features.data.tolist()
    return [(columns[a:b], values[a:b]) for a, b in pairwise(bounds)]


def from_rows(scores: Sparse, best: int) -> Found:
    """The best of each row of a sparse matrix of scores."""
    indices, found = empty(scores.shape[0], best)
    for row in range(scores.shape[0]):
        some = slice(scores.indptr[row], scores.indptr[row + 1])
        order = np.argsort(-scores.data[some], kind="stable")[:best]
        indices[row, : len(order)] = scores.indices[some][order]
        found[row, : len(order)] = scores.data[some][order]
    return indices, found


def write_xmc(path: Path, features: Sparse, titles: Titles) -> None:
    """The sparse form of the Extreme Classification Repository. Contents without a word are left out."""
    rows = rows_of(features)
    kept = [row for row, (words, _) in enumerate(rows) if words]
    with path.open("w", encoding="ascii") as file:
        file.write(f"{len(kept)} {features.shape[1]} {titles.tags}\n")
        for row in kept:
            words = " ".join(f"{word}:{weight:.6g}" for word, weight in zip(*rows[row], strict=True))
            file.write(f"{','.join(map(str, titles.truth[row].tolist()))} {words}\n")


@dataclass(frozen=True, slots=True)
class Run:
    """What a baseline cost: CPU seconds of training, contents a CPU second at prediction."""

    name: str
    train_seconds: float
    contents_per_second: float
    command: str


def command(
    name: Annotated[str, typer.Argument(help=", ".join(BASELINES))],
    corpus: Annotated[str, typer.Argument(help="folder with train, val and test contents")],
    to: Annotated[Path, typer.Option("--out", help="folder that gets a folder of this name")],
) -> None:
    """Train a baseline on the training contents and keep what it finds for the others."""
    if name not in BASELINES:
        raise UserError(f"{shorten(name)} is no baseline, expected {', '.join(BASELINES)}")
    line = f"python -m tagbus.models.baselines {name} {corpus} --out {to}"
    run = compare(name, open_corpus(corpus), to / name, line)
    console.print_line(json.dumps(asdict(run)))


def compare(name: str, corpus: Corpus, to: Path, line: str) -> Run:
    """Train, predict, write. Time is that of the CPU: the machines are shared."""
    numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
    train = list(corpus.exemplars("train"))
    baseline = BASELINES[name](to)
    started = time.process_time()
    baseline.train(Titles([text_of(item) for item in train], _truth(train, numbers), len(numbers)))
    trained = time.process_time() - started
    console.say(f"{name}: trained in {trained:.0f} CPU seconds")
    to.mkdir(parents=True, exist_ok=True)
    rate = 0.0
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        texts = [text_of(item) for item in corpus.exemplars(split)]
        started = time.process_time()
        indices, scores = baseline.predict(texts, BEST)
        rate = len(texts) / (time.process_time() - started)
        np.savez_compressed(to / f"{split}.npz", indices=indices.astype(np.int32), scores=scores.astype(np.float32))
    run = Run(name, round(trained, 1), round(rate, 1), line)
    (to / RUN).write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
    return run


def _truth(items: Sequence[Exemplar], numbers: Mapping[str, int]) -> Truth:
    return Truth.of(numbers_of(item, numbers) for item in items)
