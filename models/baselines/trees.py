"""Label trees on TF-IDF features: Omikuji (Parabel, Bonsai) and PECOS XR-Linear."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from scipy.sparse import csr_matrix

from tagbus.models.baselines.base import Found, Titles, empty
from tagbus.models.baselines.sparse import from_rows, matrix_of, rows_of, write_xmc
from tagbus.models.baselines.tfidf import TfIdf


class Omikuji:
    """Label trees, three per model: Parabel (Prabhu et al. 2018, WWW) and Bonsai (Khandagale et al. 2020)."""

    def __init__(self, **settings: bool | int) -> None:
        self._settings = settings
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """See Baseline; uses one thread."""
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
        """See Baseline."""
        features = self._words.of(texts)
        indices, scores = empty(len(texts), best)
        for row, (words, weights) in enumerate(rows_of(features)):
            for column, (tag, score) in enumerate(self._model.predict(zip(words, weights, strict=True), top_k=best)):
                indices[row, column], scores[row, column] = tag, score
        return indices, scores


class XrLinear:
    """PECOS XR-Linear (Yu et al. 2022, JMLR): a tree over the tags' mean features, a linear classifier per node."""

    def __init__(self) -> None:
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """See Baseline; uses one thread."""
        import scipy.sparse

        # pecos 1.2.8 imports a scipy module that has moved.
        scipy.sparse.sputils = scipy.sparse._sputils
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

        # PECOS takes scipy's matrices, not its arrays.
        words = csr_matrix(self._words.learn(titles.texts))
        right = csr_matrix(matrix_of(titles.truth, titles.tags))
        clusters = Indexer.gen(LabelEmbeddingFactory.create(right, words, method="pifa"), threads=1)
        self._model = XLinearModel.train(words, right.tocsc(), C=clusters, threads=1)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """See Baseline."""
        words = csr_matrix(self._words.of(texts))
        return from_rows(self._model.predict(words, only_topk=best, beam_size=20, threads=1), best)
