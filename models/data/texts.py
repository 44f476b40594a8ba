"""Texts of contents and tags, as the tagger encodes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.release import RELEASE, TOKENIZER, Release, content_text, default_folder
from tagbus.stream.errors import UserError, shorten


def text_of(item: Exemplar) -> str:
    """The text of a content as the tagger encodes it."""
    return content_text(item.title, item.text)


def tag_texts(tags: Sequence[Tag], parents: Literal["parents", "plain"] = "plain") -> list[str]:
    """The text of each tag by the template of the packaged release (name, aliases, description), as the tagger encodes
    it. With `parents` a last line holds the names of the parents, which the tagger does not add."""
    template = Release.model_validate_json((default_folder() / RELEASE).read_bytes())
    names = {tag.id: tag.name for tag in tags} if parents == "parents" else {}
    found = []
    for tag in tags:
        above = ", ".join(names[parent] for parent in tag.parents if parent in names)
        text = template.tag_text(tag.name, tag.aliases, tag.description)
        found.append(f"{text}\n{above}" if above else text)
    return found


def tokenizer(folder: Path, tokens: int) -> Tokenizer:
    """The tokenizer of an encoder's folder as the tagger uses it, for texts of at most `tokens` tokens."""
    path = folder / TOKENIZER
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} cannot be read: {shorten(str(error))}; expected the folder of an encoder") from None
    found.enable_truncation(tokens)
    found.no_padding()
    # "[SEP]" in a content is text, not a special token.
    found.encode_special_tokens = True
    return found
