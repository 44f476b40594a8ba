"""Lemmas of words: `libraries` and "a library" share one. Dictionaries are simplemma's."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field
from simplemma import lemmatize

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.recall.component import variable

# Lemmas to cache.
LEMMAS: Final = 100_000
# The setting `languages` of a component.
Languages = Annotated[
    str,
    Field(
        pattern=r"^[a-z]{2,3}(,[a-z]{2,3})*$",
        description="of the words, ISO 639 with commas; the first that knows a word gives its lemma",
    ),
]


def lemmatizer(component: str, languages: Sequence[str]) -> Callable[[str], str]:
    """The lemma of a word, casefolded, by the first of these languages (ISO 639) that knows it; else the word.

    Raises UserError, which names the component's setting, for a language that simplemma does not support.
    """
    chosen = tuple(languages)
    for language in chosen:
        try:
            lemmatize("word", lang=language)
        except ValueError:
            raise UserError(
                f"{variable(component, 'languages')}: {shorten(language)} is wrong, expected codes such as en or de,en"
            ) from None

    @lru_cache(LEMMAS)
    def lemma(word: str) -> str:
        # As written: in German only Haus is a house. No dictionary has all-caps words.
        return lemmatize(word.casefold() if word.isupper() else word, lang=chosen).casefold()

    return lemma
