"""A second release for the tests: the shipped encoder with its numbers in another order, and another tag template.

Between the two only the scores change a little. A vector of one release is meaningless to the other, so any mix of the
two shows immediately.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tagbus.stream.acceptance.twin import twin
from tagbus.stream.config import Settings
from tagbus.stream.encoder.golden import TEXTS, make_golden
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, TOKENIZER, default_folder, load_release, sha256
from tests.support import Layout, consume_all, create_topics, unique

COMPACT = {"cleanup.policy": "compact"}
LAYOUT: dict[str, Layout] = {
    "content": 6,
    "tags": (2, COMPACT),
    "exemplars": (1, COMPACT),
    "tagged": 3,
    "dead_letters": 1,
    "versions": (6, COMPACT),
    "releases": (1, COMPACT),
    "feedback": 1,
}
OUTPUT = "sentence_embedding"
SHIPPED = load_release(default_folder())


def make_release(folder: Path, name: str, seed: int = 1) -> Path:
    """`folder`/`name` with all files of a release of that name."""
    place = folder / name
    place.mkdir(parents=True)
    model = _shuffled(seed)
    tokenizer = (default_folder() / TOKENIZER).read_bytes()
    (place / MODEL).write_bytes(model)
    (place / TOKENIZER).write_bytes(tokenizer)
    about = SHIPPED.model_dump(by_alias=True) | {
        "name": name,
        "model_sha256": sha256(model),
        "tag_template": "a subject: {name}\n{aliases}\n{description}",
        "recall": SHIPPED.recall.model_dump(by_alias=True) | {"tau": 0.05},
    }
    _describe(place, about, b"")
    golden = make_golden(name, asyncio.run(_golden(place)))
    _describe(place, about, golden)
    return place


def make_twin(folder: Path, name: str) -> Path:
    """`folder`/`name` with the shipped release under another name."""
    return twin(default_folder(), folder, name)


def _shuffled(seed: int) -> bytes:
    proto = onnx.load(default_folder() / MODEL)
    graph = proto.graph
    for node in graph.node:
        node.output[:] = [f"{one}_plain" if one == OUTPUT else one for one in node.output]
    order = np.random.default_rng(seed).permutation(SHIPPED.dimension).astype(np.int64)
    graph.initializer.append(numpy_helper.from_array(order, "order"))
    graph.node.append(helper.make_node("Gather", [f"{OUTPUT}_plain", "order"], [OUTPUT], axis=1))
    return proto.SerializeToString(deterministic=True)


def _describe(place: Path, about: dict[str, object], golden: bytes) -> None:
    (place / GOLDEN).write_bytes(golden)
    (place / RELEASE).write_text(json.dumps(about | {"golden_sha256": sha256(golden)}))


async def _golden(place: Path) -> np.ndarray:
    encoder = OnnxEncoder(place)
    try:
        return await encoder.encode(TEXTS)
    finally:
        await encoder.close()


@dataclass(frozen=True)
class Bus:
    """Topics of a test's own, and the settings of workers and commands on them."""

    address: str
    names: dict[str, str]
    settings: Settings

    @classmethod
    def made(cls, address: str) -> Self:
        names = {word: unique(word) for word in LAYOUT}
        create_topics(address, {names[word]: layout for word, layout in LAYOUT.items()})
        # A broker names the leader of a new partition some milliseconds before it is one.
        consume_all(address, names["releases"])
        base = Settings.model_construct()
        kafka = base.kafka.model_copy(update={"brokers": address, "group": unique("group"), "instance": unique("w")})
        return cls(
            address,
            names,
            Settings.model_construct(kafka=kafka, topics=base.topics.model_copy(update=names)),
        )

    def command(self, folder: Path) -> dict[str, str]:
        """The same for a command, names without the prefix; releases lie in `folder`."""
        return {
            "KAFKA__BROKERS": self.address,
            "KAFKA__GROUP": self.settings.kafka.group,
            "RELEASES__FOLDER": str(folder),
            **{f"TOPICS__{word.upper()}": name for word, name in self.names.items()},
        }
