"""What a word is, by the script that it is written in."""

from typing import Final

# Scripts that are written without spaces (Thai to Khmer, Japanese, Chinese), for a class of a regular expression: each
# of their characters is a word.
DENSE: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
