"""A corpus as a folder of JSON lines in the models of the topics; examples/ is one.

tags.jsonl                               the taxonomy
exemplars.jsonl or train.jsonl           training contents
calibration.jsonl or val.jsonl           validation contents
content.jsonl with answers.jsonl, or test.jsonl
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tagbus.stream.app.data.corpus import Split, each_once
from tagbus.stream.app.places import files
from tagbus.stream.contract.codec import parse
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import Poison, UserError, shorten

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class JsonlFolder:
    """A folder of JSON lines."""

    folder: Path

    def tags(self) -> list[Tag]:
        """The taxonomy of tags.jsonl."""
        path = self.folder / "tags.jsonl"
        return each_once(path, _events(path, files.tag_of))

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents of a split. Raises UserError if a test content has no answer."""
        whole = {"train": ("train", "exemplars"), "val": ("val", "calibration"), "test": ("test",)}[split]
        for name in whole:
            if (path := self.folder / f"{name}.jsonl").exists():
                return _events(path, files.exemplar_of)
        if split == "test" and (self.folder / "content.jsonl").exists():
            return self._joined()
        raise UserError(f"{self.folder} has no {' or '.join(f'{name}.jsonl' for name in whole)}")

    def languages(self) -> dict[str, str]:
        """The language of each test content that names one, by its id."""
        path = self.folder / "content.jsonl"
        if not path.exists() or (self.folder / "test.jsonl").exists():
            return {}
        contents = _events(path, lambda line: parse(line.value, Content))
        return {content.id: content.language for content in contents if content.language}

    def _joined(self) -> Iterator[Exemplar]:
        path = self.folder / "answers.jsonl"
        answers = {answer.id: answer.accepted for answer in _events(path, lambda line: parse(line.value, Exemplar))}
        for content in _events(self.folder / "content.jsonl", lambda line: parse(line.value, Content)):
            if content.id not in answers:
                raise UserError(f"{path}: no answer for content {shorten(content.id)}")
            yield Exemplar(
                id=content.id,
                title=content.title,
                text=content.text,
                accepted=answers[content.id],
                scopes=content.scopes,
            )


def _events(path: Path, read: Callable[[files.Line], E]) -> Iterator[E]:
    """The events of a file. Raises UserError that names line and field."""
    files.require_regular(path)
    for line in files.read_lines(path):
        try:
            yield read(line)
        except Poison as error:
            raise UserError(f"{line.place}: {error}") from None
