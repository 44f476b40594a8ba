"""The candidates of real titles on which bench/llm.py measures a judge: the tagger's, kept in a file."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import content_of, tag_all
from tagbus.stream.config import CascadeSettings, LlmSettings, Settings
from tagbus.stream.contract.events import Exemplar, Tag, TaggedContent
from tagbus.stream.llm.base import Asked, Question
from tagbus.stream.llm.decisions import CONTRACTS
from tagbus.stream.llm.open import prompts_of
from tagbus.stream.llm.worth import cascade
from tagbus.stream.logistic import Flags, Floats

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.llm.known_quality import Ranked

PLACES = 10
CONTROL = CascadeSettings().control


@dataclass(frozen=True)
class Found:
    """The candidates of contents, the tokens of the request about each, and which are the control share."""

    ranked: Ranked
    tokens: Floats
    control: Flags


def sample(items: list[Exemplar], count: int) -> list[Exemplar]:
    """A fixed random sample."""
    return [items[index] for index in np.random.default_rng(0).permutation(len(items))[:count]]


async def collect(data: DataFolder, memory: int, titles: int, cache: Path, files: Mapping[str, Path]) -> None:
    """Collect the candidates of titles of each split, into its file."""
    settings = Settings()
    settings = settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": PLACES})})
    async with assemble.in_process(settings, cache) as stack:
        known = sample(list(data.exemplars("train")), memory)
        tags = list(data.tags())
        try:
            with console.bar("encoding memory", memory + len(tags)) as bar:
                await filling.fill(stack.projection(), {"tags": tags, "exemplars": known}, bar.advance)
        finally:
            await filling.save_memories(cache, stack.memories)
        for split, file in files.items():
            chosen = sample(list(data.exemplars(split)), titles)
            with console.bar(f"tagging {split}", len(chosen)) as bar:
                results = await tag_all(stack.uncalibrated(), [content_of(item) for item in chosen], bar.advance)
            # The judge is not asked about a content without candidates.
            some = [(one, item) for one, item in zip(results, chosen, strict=True) if one.tags]
            found = Found(
                ranked([one for one, _ in some], {item.id: frozenset(item.accepted) for item in chosen}),
                requested(some, {tag.id: tag for tag in tags}),
                np.array([cascade.is_control(item.id, CONTROL) for _, item in some]),
            )
            write(found, file)


def requested(results: Sequence[tuple[TaggedContent, Exemplar]], tags: Mapping[str, Tag]) -> Floats:
    """Return the tokens of the request about each content."""
    prompts = prompts_of(LlmSettings())

    def bytes_of(result: TaggedContent, item: Exemplar) -> int:
        found = [tags[tag.id] for tag in result.tags[:PLACES]]
        asked = [Question(tag.id, tag.name, tag.description) for tag in found]
        rendered = prompts.render(Asked(content_of(item), asked))
        body = CONTRACTS["systemone"].body(
            "scripted", f"{rendered.task}\n\n{rendered.context}", [prompts.question(one) for one in asked]
        )
        return len(json.dumps(body, ensure_ascii=False).encode())

    return np.array([bytes_of(*pair) / 4 for pair in results])


def ranked(results: list[TaggedContent], truth: dict[str, frozenset[str]]) -> Ranked:
    """Return candidates as arrays; one of each content, chosen at random, is shown first."""
    rng = np.random.default_rng(0)
    pairs = [
        (tag.score, tag.id in truth[one.id], number) for number, one in enumerate(results) for tag in one.tags[:PLACES]
    ]
    score, right, content = (np.array(column) for column in zip(*pairs, strict=True))
    first = np.zeros(len(pairs), np.bool_)
    starts = np.unique(content, return_index=True)[1]
    lengths = np.diff(np.append(starts, len(pairs)))
    first[starts + (rng.random(len(starts)) * lengths).astype(int)] = True
    return Ranked(score.astype(np.float64), right.astype(np.bool_), content.astype(np.int64), first)


def read(file: Path) -> Found:
    """Read the candidates of an earlier run."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = Ranked(*(stored[name] for name in ("score", "right", "content", "first")))
        return Found(arrays, stored["tokens"], stored["control"])


def write(found: Found, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    one = found.ranked
    np.savez(
        file,
        score=one.score,
        right=one.right,
        content=one.content,
        first=one.first,
        tokens=found.tokens,
        control=found.control,
    )
