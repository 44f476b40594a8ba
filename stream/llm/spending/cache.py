"""A cache of answers by question: prompt, model, content and candidates."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence

from tagbus.stream.llm.base import Asked, Judged


def key_of(version: str, asked: Asked) -> bytes:
    """A hash of the judge's version (server, model, prompt), of the parts of the content that it reads, and of the tags
    in order. Exemplars and knowledge are not part of it: memory's updates count from the next content on."""
    content = asked.content
    read = [
        *(version, asked.language, content.title, content.text),
        sorted((name, repr(value)) for name, value in (content.metadata or {}).items()),
        sorted(content.scopes),
        [(one.tag_id, one.name, one.description) for one in asked.questions],
    ]
    return hashlib.sha256(json.dumps(read, ensure_ascii=True).encode()).digest()


class Cache:
    """An LRU of at most `size` answers. Answers with a failure are not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, Judged] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[bytes]) -> list[Judged | None]:
        """The cached answer of each key."""
        found = [self._kept.get(key) for key in keys]
        for key, one in zip(keys, found, strict=True):
            if one is not None:
                self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, judged: Judged) -> None:
        """Keep an answer, without its usage: a cache hit uses nothing."""
        if judged.failure is not None or self._size == 0:
            return
        self._kept[key] = judged
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
