"""Train, validation and test splits by a hash of the id: a content stays in its split if others are added."""

import hashlib
from typing import Final

from tagbus.stream.app.data.corpus import Split as Split

# One content in 50 is held out for validation, and one in 50 for the test.
HELD_OUT: Final = 50


def split_of(name: str) -> Split:
    """The split of the content with this id."""
    bucket = int.from_bytes(digest(name.encode())) % HELD_OUT
    return "val" if bucket == 0 else "test" if bucket == 1 else "train"


def one_in(number: int, name: str) -> bool:
    """Whether the content with this id is among one in `number`, whatever its split."""
    return int.from_bytes(digest(name.encode())) // 7 % number == 0


def digest(key: bytes) -> bytes:
    """Return a 64-bit hash: a million keys collide once in 40 million times."""
    return hashlib.blake2b(key, digest_size=8).digest()
