"""Annif's Omikuji backend as a baseline: a project folder set up as in Annif's manual."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.models.baselines.base import BEST, Found, Titles, empty

PROJECT: Final = "bonsai"
# Files that nltk's tokenizer reads before it splits a text; empty ones are enough for titles.
PUNKT: Final = ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab")
SETTINGS: Final = f"""[{PROJECT}]
name=Omikuji Bonsai
language=en
backend=omikuji
analyzer=snowball(english)
vocab=tags
cluster_balanced=False
cluster_k=100
max_depth=3
min_df=2
limit={{limit}}
"""


class AnnifOmikuji:
    """Annif 1.4 (Suominen 2019) with Bonsai: stemmed words, and its own pipeline from text to suggestions."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of the project, created by `train`."""
        self._folder = folder.absolute()

    def train(self, titles: Titles) -> None:
        """Load the vocabulary and train with one thread, through Annif's API."""
        _lay_out(self._folder, titles)
        self.open()
        from annif.corpus.document import DocumentFileTSV
        from annif.vocab import VocabFileTSV

        with self._app.app_context():
            self._project.vocab.load_vocabulary(VocabFileTSV(str(self._folder / "tags.tsv"), "en"))
            self._project.train(DocumentFileTSV(str(self._folder / "train.tsv"), self._project.subjects), jobs=1)

    def open(self) -> None:
        """Open the trained project. Annif reads its environment variables at import."""
        os.environ |= {
            "ANNIF_PROJECTS": str(self._folder / "projects.cfg"),
            "ANNIF_DATADIR": str(self._folder / "data"),
            "NLTK_DATA": str(self._folder / "nltk"),
        }
        import annif
        import annif.registry

        self._app = annif.create_flask_app("annif.default_config.Config")
        with self._app.app_context():
            annif.registry.initialize_projects(self._app)
            self._project = annif.registry.get_project(PROJECT)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """Suggestions, in Annif's batches of 32."""
        from annif.corpus.types import Document

        indices, scores = empty(len(texts), best)
        with self._app.app_context():
            for start in range(0, len(texts), 32):
                batch = self._project.suggest([Document(text) for text in texts[start : start + 32]])
                for row, found in enumerate(batch):
                    some = sorted(found, key=lambda one: -one.score)[:best]
                    indices[start + row, : len(some)] = [self._numbers()[one.subject_id] for one in some]
                    scores[start + row, : len(some)] = [one.score for one in some]
        return indices, scores

    def _numbers(self) -> NDArray[np.int64]:
        """Annif's subject numbers to tag numbers."""
        if not hasattr(self, "_known"):
            subjects = (self._project.subjects[number] for number in range(len(self._project.subjects)))
            self._known = np.array([int(subject.uri.rsplit("/", 1)[1]) for subject in subjects], np.int64)
        return self._known


def _lay_out(folder: Path, titles: Titles) -> None:
    """Write the files of the project."""
    punkt = folder / "nltk" / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True, exist_ok=True)
    for name in PUNKT:
        (punkt / name).touch()
    (folder / "projects.cfg").write_text(SETTINGS.format(limit=BEST), encoding="utf-8")
    with (folder / "tags.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"<{_uri(tag)}>\ttag {tag}\n" for tag in range(titles.tags))
    with (folder / "train.tsv").open("w", encoding="utf-8") as file:
        for row, text in enumerate(titles.texts):
            uris = " ".join(f"<{_uri(tag)}>" for tag in titles.truth[row].tolist())
            file.write(f"{' '.join(text.split())}\t{uris}\n")


def _uri(tag: int) -> str:
    return f"http://tagbus.example/{tag}"
