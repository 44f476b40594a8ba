"""Detect the format of a folder of contents with known tags."""

from pathlib import Path

from tagbus.stream.app.data.corpus import Corpus, WithSuccessors
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.data.jsonl_folder import JsonlFolder


def in_folder(folder: Path) -> Corpus | None:
    """The corpus in a folder with labels.tsv or tags.jsonl; None for any other folder."""
    if (folder / "labels.tsv").exists():
        return DataFolder(folder)
    if (folder / "tags.jsonl").exists():
        return WithSuccessors(JsonlFolder(folder))
    return None


def languages_in(folder: Path) -> dict[str, str]:
    """The language of each test content that names one, by its id; the labels.tsv format has no field for it."""
    return {} if (folder / "labels.tsv").exists() else JsonlFolder(folder).languages()
