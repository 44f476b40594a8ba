"""Word boundaries by script."""

from typing import Final

# Scripts written without spaces (Thai to Khmer, Japanese, Chinese), for a regular expression's character class: each of
# their characters is a word.
DENSE: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
