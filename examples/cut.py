"""Cuts the example data from a folder of YSO titles: `python examples/cut.py ../shared/data/yso-titles`.

The folder holds labels.tsv, train.tsv.xz (or train.tsv), val.tsv, test.tsv and emerging.txt. The rule, step by step, is
in README.md beside this file. It looks at the data alone, never at how well a tagger does, and gives the same bytes
again from the same folder. Standard library only; 12 s and 260 MB on one core.
"""

import argparse
import hashlib
import heapq
import json
import lzma
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

SEED = "environment"
TEXT_CHARS = 300
GROW_TAGS = 2_500
LEAST_TITLES = 2
ENOUGH_EXEMPLARS = 7
CONTENTS = 600
NEW_TAG_CONTENTS = 5
OVERLAP = 0.7
# A word in more titles than this proposes no pair to compare; a pair that shares only such words is not seen.
COMMON_WORD = 5_000

Json: TypeAlias = "str | int | Sequence[Json] | dict[str, Json] | None"
Row: TypeAlias = dict[str, Json]


@dataclass(frozen=True)
class Title:
    """A line of the source: `id` names its file and line, counted from 1; `tags` keeps the source's order."""

    id: str
    text: str
    tags: tuple[int, ...]

    @property
    def order(self) -> str:
        """What titles are sorted by: arbitrary, and the same everywhere."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def words(self) -> frozenset[str]:
        """Its words without order, case and punctuation."""
        return frozenset(re.findall(r"\w+", self.text.casefold()))


@dataclass(frozen=True)
class Source:
    """The folder as read: tags by number, titles no longer than TEXT_CHARS, each split in the order of the hashes."""

    ids: list[str]
    names: list[str]
    train: list[Title]
    val: list[Title]
    test: list[Title]
    emerging: list[int]


@dataclass(frozen=True)
class Slice:
    """What was cut: the tags in force, the new tag, and titles all of whose tags are among them."""

    tags: list[int]
    new_tag: int
    exemplars: list[Title]
    calibration: list[Title]
    contents: list[Title]
    new_contents: list[Title]


def read(folder: Path) -> Source:
    """Reads the folder."""
    labels = [line.split("\t") for line in lines(folder / "labels.tsv")]
    packed = folder / "train.tsv.xz"
    return Source(
        ids=[uri.rsplit("/", 1)[1] for _, uri, _ in labels],
        names=[name for _, _, name in labels],
        train=titles(packed if packed.exists() else folder / "train.tsv", "train"),
        val=titles(folder / "val.tsv", "val"),
        test=titles(folder / "test.tsv", "test"),
        emerging=[int(number) for number in lines(folder / "emerging.txt")],
    )


def lines(path: Path) -> list[str]:
    """The lines of a file, packed or not."""
    data = path.read_bytes()
    return (lzma.decompress(data) if path.suffix == ".xz" else data).decode().rstrip("\n").split("\n")


def titles(path: Path, split: str) -> list[Title]:
    """The short titles of a split, in the order of their hashes."""
    found = []
    for row, line in enumerate(lines(path), start=1):
        text, numbers = line.split("\t")
        if len(text) <= TEXT_CHARS:
            found.append(Title(f"yso-{split}-{row}", text, tuple(int(number) for number in numbers.split(","))))
    return sorted(found, key=lambda title: title.order)


def grow(train: list[Title], seed: int, size: int) -> set[int]:
    """Grows a set of tags from the seed, the closest outside tag first, until it has `size` of them.

    The closeness of a tag is touching / sqrt(all): `all` counts its titles, `touching` those of them that carry a tag
    of the set already. The square root keeps to the middle: without it frequent tags win that go with anything, and
    with `all` itself the rarest tags do. Of equals the one with the lower number comes first.
    """
    titles_of = defaultdict(list)
    for title in train:
        for tag in title.tags:
            titles_of[tag].append(title)
    chosen: set[int] = set()
    touched: set[str] = set()
    touching: Counter[int] = Counter()
    queue = [(0.0, seed)]
    while queue and len(chosen) < size:
        _, tag = heapq.heappop(queue)
        if tag in chosen:
            continue
        chosen.add(tag)
        for title in titles_of[tag]:
            if title.id in touched:
                continue
            touched.add(title.id)
            touching.update(title.tags)
            # Closeness only grows, so an older entry of the same tag comes out later and is passed over.
            for near in set(title.tags) - chosen:
                heapq.heappush(queue, (-touching[near] / len(titles_of[near]) ** 0.5, near))
    return chosen


def closed(found: Iterable[Title], tags: set[int]) -> list[Title]:
    """The titles all of whose tags are among `tags`, so that what is known of them is whole."""
    return [title for title in found if tags.issuperset(title.tags)]


def prune(train: list[Title], tags: set[int]) -> set[int]:
    """Drops tags with fewer than LEAST_TITLES closed training titles, again and again until none is left to drop."""
    while True:
        counts = Counter(tag for title in closed(train, tags) for tag in title.tags)
        kept = {tag for tag in tags if counts[tag] >= LEAST_TITLES}
        if kept == tags:
            return kept
        tags = kept


def naming(found: Iterable[Title], tag: int, name: str) -> list[Title]:
    """The titles that carry a tag and say its name as whole words, those with the fewest other characters first."""
    pattern = re.compile(rf"\b{re.escape(name.casefold())}\b")
    named = [title for title in found if tag in title.tags and pattern.search(title.text.casefold())]
    return sorted(named, key=lambda title: len(title.text))


def pick_new_tag(source: Source, tags: set[int]) -> int:
    """The tag to hold out, an easy one: of those that the source lists as emerging, the one whose name makes up most
    of its NEW_TAG_CONTENTS plainest titles. A name that two tags share is passed over; of equals the lower number wins.
    """
    train = closed(source.train, tags)
    names = Counter(source.names[tag] for tag in tags)

    def plainness(tag: int) -> float:
        name = source.names[tag]
        return sum(len(name) / len(title.text) for title in naming(train, tag, name)[:NEW_TAG_CONTENTS])

    fit = sorted(tag for tag in tags.intersection(source.emerging) if names[source.names[tag]] == 1)
    return max(fit, key=plainness)


def unlike(found: list[Title], others: list[Title]) -> list[Title]:
    """The titles that are no near-duplicate of any of the others, nor of one before them.

    Near-duplicates share at least OVERLAP of their words (Jaccard): reprints, other volumes of a series, typing errors.
    """
    seen: defaultdict[str, list[frozenset[str]]] = defaultdict(list)

    def remember(words: frozenset[str]) -> None:
        for word in words:
            seen[word].append(words)

    for other in others:
        remember(other.words)
    kept = []
    for title in found:
        words = title.words
        near = {other for word in words if len(seen[word]) <= COMMON_WORD for other in seen[word]}
        if all(len(words & other) < OVERLAP * len(words | other) for other in near):
            kept.append(title)
            remember(words)
    return kept


def few_a_tag(train: list[Title]) -> list[Title]:
    """Thins out frequent tags: a title is kept if one of its tags has fewer than ENOUGH_EXEMPLARS titles so far."""
    counts: Counter[int] = Counter()
    kept = []
    for title in train:
        if any(counts[tag] < ENOUGH_EXEMPLARS for tag in title.tags):
            kept.append(title)
            counts.update(title.tags)
    return kept


def cut(source: Source) -> Slice:
    """The whole rule, in the order of the README."""
    grown = prune(source.train, grow(source.train, source.names.index(SEED), GROW_TAGS))
    new_tag = pick_new_tag(source, grown)
    tags = prune(source.train, grown - {new_tag})
    train = closed(source.train, tags)
    contents = unlike(closed(source.test, tags), train)
    calibration = unlike(closed(source.val, tags), train + contents)
    named = naming(closed(source.train, tags | {new_tag}), new_tag, source.names[new_tag])
    return Slice(
        tags=sorted(tags),
        new_tag=new_tag,
        exemplars=few_a_tag(train),
        calibration=calibration,
        contents=contents[:CONTENTS],
        new_contents=unlike(named, train)[:NEW_TAG_CONTENTS],
    )


def broken() -> list[Row]:
    """Events that can never be tagged: the value as base64, or as `before`, `repeat` written `times` times, `after`."""

    def packed(why: str, key: str | None, value: bytes) -> Row:
        return {"why": why, "key": key, "base64": b64encode(value).decode()}

    return [
        packed("undecodable: not UTF-8", "broken-1", b'{"id": "broken-1", "title": "caf\xe9 \xff\xfe"}'),
        packed("not JSON", "broken-2", b"A plain line of text where an event should be"),
        packed("JSON that was cut off", "broken-3", b'{"id": "broken-3", "title": "Forest ecol'),
        packed("wrong type: id is a number", "broken-4", b'{"id": 4, "title": "Forest ecology"}'),
        packed("wrong type: text is a list", "broken-5", b'{"id": "broken-5", "text": ["Forest", "ecology"]}'),
        packed("id is missing", None, b'{"title": "Forest ecology"}'),
        packed("neither title nor text", "broken-7", b'{"id": "broken-7", "title": " ", "language": "en"}'),
        {
            "why": "text of 600,000 characters, above the limit of 500,000",
            "key": "broken-8",
            "before": '{"id": "broken-8", "text": "',
            "repeat": "x",
            "times": 600_000,
            "after": '"}',
        },
    ]


def write(source: Source, found: Slice, folder: Path) -> None:
    """Writes the slice as the files of the README."""

    def ids(title: Title) -> list[str]:
        return [source.ids[tag] for tag in title.tags]

    def tag(number: int) -> Row:
        return {"id": source.ids[number], "name": source.names[number]}

    def event(title: Title) -> Row:
        return {"id": title.id, "text": title.text, "language": "en"}

    def exemplar(title: Title) -> Row:
        row: Row = {"id": title.id, "source": "people", "title": "", "text": title.text}
        return row | {"accepted": ids(title), "rejected": []}

    files: dict[str, list[Row]] = {
        "tags.jsonl": [tag(number) for number in found.tags],
        "exemplars.jsonl": [exemplar(title) for title in found.exemplars],
        "calibration.jsonl": [exemplar(title) for title in found.calibration],
        "content.jsonl": [event(title) for title in found.contents],
        "answers.jsonl": [{"id": title.id, "accepted": ids(title)} for title in found.contents],
        "new_tag.json": [tag(found.new_tag)],
        "new_tag_content.jsonl": [event(title) for title in found.new_contents],
        "broken.jsonl": broken(),
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_bytes(text.encode())


def report(source: Source, found: Slice) -> Row:
    """The figures of the README: counts, means, and shares in percent."""
    per_tag = Counter(tag for title in found.exemplars for tag in title.tags)
    shown = {tag for title in found.contents for tag in title.tags}
    covered = sum(all(per_tag[tag] for tag in title.tags) for title in found.contents)

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}"

    row: Row = {name: len(getattr(found, name)) for name in ("tags", "exemplars", "calibration", "contents")}
    for name, split in ("exemplar", found.exemplars), ("content", found.contents):
        row[f"tags a {name}"] = f"{sum(len(title.tags) for title in split) / len(split):.2f}"
        row[f"characters a {name}"] = f"{sum(len(title.text) for title in split) / len(split):.0f}"
    for least in (1, 2, 5):
        enough = sum(per_tag[tag] >= least for tag in found.tags)
        row[f"% of tags with {least} exemplars or more"] = share(enough, len(found.tags))
    row["% of contents whose tags all have an exemplar"] = share(covered, len(found.contents))
    row["% of tags that a content carries"] = share(len(shown), len(found.tags))
    row["new tag"] = source.names[found.new_tag]
    return row


def main() -> None:
    """Cuts, writes, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="Cut the example data from a folder of YSO titles.")
    parser.add_argument("folder", type=Path, help="with labels.tsv, train.tsv.xz, val.tsv, test.tsv, emerging.txt")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this)")
    arguments = parser.parse_args()
    source = read(arguments.folder)
    found = cut(source)
    write(source, found, arguments.out)
    print(json.dumps(report(source, found), indent=2))


if __name__ == "__main__":
    main()
