"""A corpus written as a folder of JSON lines, as `open_corpus` reads it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tagbus.stream.app.data.corpus import Split
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.fields import Event


def write(folder: Path, tags: Sequence[Tag], splits: Mapping[Split, Iterable[Exemplar]]) -> None:
    """Write tags and contents into a new folder, a content at a time."""
    folder.mkdir(parents=True)
    _write(folder / "tags.jsonl", tags)
    for name, items in splits.items():
        _write(folder / f"{name}.jsonl", items)


def _write(path: Path, events: Iterable[Event]) -> None:
    with path.open("wb") as file:
        for event in events:
            file.write(encode(event) + b"\n")
