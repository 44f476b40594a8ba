"""The length of a text in tokens, without a tokenizer: an upper estimate.

Measured with SmolLM2, whose 49,000 tokens are fewer than those of most language models: English has 0.24 tokens a byte,
Finnish and Polish 0.41 to 0.54, code 0.34 to 0.67, digits and rare characters 0.92 to 0.97. Only random lower-case
letters (0.7) have more than is estimated.
"""

import re
from bisect import bisect_right
from typing import Final

# A character is at least this share of a token.
CHARS_A_TOKEN: Final = 3
# A word with the space before it. It takes a token for each three letters, but one at least, and two for each three
# beyond the fifth: long words are rare or compound. Any other byte may be a token.
_WORD: Final = re.compile(rb" ?[a-z]+")
_COMMON: Final = 5


def tokens(text: str) -> int:
    """An upper estimate of the tokens of a text."""
    return -(-thirds(text) // 3)


def thirds(text: str) -> int:
    """The same in thirds of a token, not rounded: that of lines is the sum of theirs."""
    data = text.encode()
    words = list(map(len, _WORD.findall(data)))
    return 3 * (len(data) - sum(words)) + sum(max(3, size, 2 * size - _COMMON) for size in words)


def shortened(text: str, over: int) -> str:
    """The text without its last `over` tokens and those of the ellipsis that replaces them."""
    room = thirds(text) - 3 * over - thirds("…")
    kept = text[: max(0, bisect_right(range(len(text)), room, key=lambda end: thirds(text[:end])) - 1)].rstrip()
    return f"{kept}…" if kept else ""
