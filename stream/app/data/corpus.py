"""A corpus: tags, and contents whose tags are known, split for training, validation and test."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.recall.taxonomy.successors import ends_of, only

Split = Literal["train", "val", "test"]


class Corpus(Protocol):
    """Tags, and contents whose tags are known."""

    def tags(self) -> list[Tag]:
        """The taxonomy. Raises UserError that names file and line."""
        ...

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents of a split, streamed in a fixed order. Raises UserError that names file and line."""
        ...


@dataclass(frozen=True, slots=True)
class WithSuccessors:
    """A corpus as memory holds it: decisions on a replaced tag count for its successor."""

    corpus: Corpus

    def tags(self) -> list[Tag]:
        """The tags in force."""
        return [tag for tag in self.corpus.tags() if not tag.replaced_by]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents that have a tag; decisions on a tag that was split count for none of its successors."""
        heirs = heirs_of(self.corpus.tags())
        for item in self.corpus.exemplars(split):
            if heirs.keys().isdisjoint(item.accepted):
                yield item
            elif kept := followed(item.accepted, heirs):
                yield item.model_copy(update={"accepted": kept})


def each_once(path: Path, tags: Iterable[Tag]) -> list[Tag]:
    """The tags of a file. Raises UserError for an id that comes twice: which of both is meant cannot be known."""
    found: dict[str, Tag] = {}
    for tag in tags:
        if tag.id in found:
            raise UserError(f"{path}: tag {shorten(tag.id)} comes twice; ids must be unique")
        found[tag.id] = tag
    return list(found.values())


def heirs_of(tags: Iterable[Tag]) -> dict[str, str | None]:
    """The tag that each replaced one counts as; None if there is none, or several."""
    replaced = {tag.id: tag.replaced_by for tag in tags}
    known = set(replaced)
    replaced = {tag_id: successors for tag_id, successors in replaced.items() if successors}
    return {tag_id: only(ends_of(tag_id, replaced, known.__contains__)[0]) for tag_id in replaced}


def followed(accepted: Iterable[str], heirs: Mapping[str, str | None]) -> tuple[str, ...]:
    """Accepted tags, replaced ones as what they count as, each once."""
    found = dict.fromkeys(heirs.get(tag_id, tag_id) for tag_id in accepted)
    return tuple(tag_id for tag_id in found if tag_id is not None)
