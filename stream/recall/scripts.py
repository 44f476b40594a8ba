"""Scripts of a text: its normal form, word boundaries, and a stand-in for a missing language."""

import re
import unicodedata
from collections import Counter
from itertools import islice
from typing import Final

# Scripts written without spaces (Thai to Khmer, Japanese, Chinese), for a regular expression's character class: each of
# their characters is a word.
DENSE: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# What shows nothing inside a word and does not end it (UAX #29, rule WB4): soft hyphens, joiners, marks of direction,
# variation selectors. U+200B does end it.
_IGNORED: Final = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]+"
)
# The name for a text without letters.
OTHER: Final = "other"
# How many characters of a text are searched for letters, and how many letters are used.
_SEEN: Final = 800
_LETTERS: Final = 40


def normal(text: str) -> str:
    """A text as words are compared: NFKC, without what is invisible inside a word."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _IGNORED.sub("", text))


def language_of(given: str | None, text: str) -> str:
    """The language that a content names, without its region; if it names none, the most frequent script of the first
    letters of its text, as Unicode names it (`Latin`, `Cyrillic`, `Cjk`)."""
    if given:
        return re.split("[-_]", given.lower(), maxsplit=1)[0]
    letters = islice(filter(str.isalpha, text[:_SEEN]), _LETTERS)
    scripts = Counter(unicodedata.name(letter, OTHER).replace("-", " ").split(" ", 1)[0] for letter in letters)
    return scripts.most_common(1)[0][0].capitalize() if scripts else OTHER
