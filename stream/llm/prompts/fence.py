"""Make untrusted text safe for a prompt: it cannot end its fence, start a line or form a control token."""

import re
import unicodedata
from typing import Final

# Controls, formats (bidirectional marks, zero-width characters, invisible tags), surrogates, private use, unassigned.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
# These two join letters in Persian, Hindi and emoji.
_JOINERS: Final = frozenset("\u200c\u200d")
# Control tokens in square brackets: of Mistral, Llama 2 and GLM ([INST], [/INST], [SYSTEM_PROMPT], [gMASK]).
_BRACKETS: Final = re.compile(r"\[(/?[A-Z][A-Z_]+|gMASK)\]")
# Brackets beside a bar or a tilde: of EXAONE ([|endofturn|]) and MiniMax (]~b], [e~[).
_OPENING: Final = re.compile(r"\[(?=\|)|(?<=~)\[")
_CLOSING: Final = re.compile(r"\](?=~)|(?<=\|)\]")
_ESCAPES: Final = str.maketrans({"<": "‹", ">": "›", '"': "'", "｜": "|"})


def fenced(text: str, length: int) -> str:
    """One line of at most `length` characters, with an ellipsis if it was cut.

    `<`, `>`, `"` and the brackets of control tokens are replaced by look-alikes, so no fence of a template and no token
    of a chat template, such as `<|token|>`, can be written; lines and unseen characters become spaces or nothing. At
    most 2 x `length` characters are read.
    """
    line = _BRACKETS.sub(r"(\1)", _line(text, length).translate(_ESCAPES))
    line = _CLOSING.sub(")", _OPENING.sub("(", line))
    return f"{line[: length - 1]}…" if len(line) > length or len(text) > 2 * length + 1 else line


def seen(text: str, length: int) -> str:
    """The same without replacements, for text outside prompts: a model's output, a search query."""
    line = _line(text, length)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _line(text: str, length: int) -> str:
    line = " ".join(text[: 2 * length + 1].split())
    return line if line.isprintable() else " ".join("".join(filter(_is_seen, line)).split())


def _is_seen(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNSEEN
