"""Folders of contents with known tags: which format one has."""

from pathlib import Path

from tagbus.stream.app.data.corpus import Corpus, WithSuccessors
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.data.jsonl_folder import JsonlFolder


def in_folder(folder: Path) -> Corpus | None:
    """What a folder with labels.tsv or tags.jsonl holds; None for another."""
    if (folder / "labels.tsv").exists():
        return DataFolder(folder)
    if (folder / "tags.jsonl").exists():
        return WithSuccessors(JsonlFolder(folder))
    return None


def languages_in(folder: Path) -> dict[str, str]:
    """The language of each test content that names one, by its id; labels.tsv has no place for it."""
    return {} if (folder / "labels.tsv").exists() else JsonlFolder(folder).languages()
