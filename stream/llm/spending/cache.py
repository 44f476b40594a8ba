"""Answers to the same question: prompt, model, content and candidates."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence

from tagbus.stream.llm.base import Asked, Judged


def key_of(version: str, asked: Asked) -> bytes:
    """A hash of the judge's version (server, model, prompt), of what it reads of the content, and of the tags in their
    order. Exemplars and knowledge are no part of it: what memory has learnt since counts from the next content on."""
    content = asked.content
    read = [
        *(version, asked.language, content.title, content.text),
        sorted((name, repr(value)) for name, value in (content.metadata or {}).items()),
        sorted(content.scopes),
        [(one.tag_id, one.name, one.description) for one in asked.questions],
    ]
    return hashlib.sha256(json.dumps(read, ensure_ascii=True).encode()).digest()


class Cache:
    """The answers that were asked for last, at most `size`. Those with a failure are not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, Judged] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[bytes]) -> list[Judged | None]:
        """What is kept under each key."""
        found = [self._kept.get(key) for key in keys]
        for key, one in zip(keys, found, strict=True):
            if one is not None:
                self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, judged: Judged) -> None:
        """Keep an answer, without what it took: it takes nothing the next time."""
        if judged.failure is not None or self._size == 0:
            return
        self._kept[key] = judged
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
