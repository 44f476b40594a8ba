"""Cuts the example data from Debian's package lists: `python examples/cut.py FOLDER`.

The folder contains the lists that `apt-get update` fetches for bookworm main amd64 (Release, Packages, Translation-en),
and the file `vocabulary` of the package debtags; README.md beside this file has the commands and the rules. The cut
depends on the data alone and is reproducible byte for byte. Standard library only; 8 s and 530 MB on one core.
"""

import argparse
import hashlib
import json
import math
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeAlias

SUITE = "_dists_bookworm_"
# Tags that the name of a package or the boilerplate of its description gives away, and tags that repeat one of those:
# x11::application implies interface::x11, devel::doc implies role::documentation.
_FACETS = r"(role|implemented-in|interface|scope|special|secteam)::"
GIVEN_AWAY = re.compile(_FACETS + r"|devel::lang:|.*::TODO$|devel::(library|doc)$|x11::application$")
# An address of a web site, a host or a person: texts that name one are left out.
ADDRESS = re.compile(r"://|@|\bwww\.|\b[\w-]+\.(?:org|com|net|edu|gov|io|dev)\b", re.IGNORECASE)
TEXT_CHARS = 200
TEST_SHARE = 0.15
CALIBRATION_SHARE = 0.06
ENOUGH_EXEMPLARS = 15
CONTENTS = 600
NEW_TAG_CONTENTS = 5
OVERLAP_PERCENT = 70

Json: TypeAlias = "str | int | Sequence[Json] | dict[str, Json] | None"
Row: TypeAlias = dict[str, Json]
Stanza: TypeAlias = dict[str, str]


@dataclass(frozen=True)
class Package:
    """A binary package: its synopsis, the first paragraph of its description, its tags in the order of the list."""

    id: str
    source: str
    title: str
    text: str
    tags: tuple[str, ...]

    @property
    def order(self) -> str:
        """Return the sort key of packages: arbitrary, and the same everywhere."""
        return hashlib.sha256(self.id.encode()).hexdigest()

    @property
    def said(self) -> str:
        """Title and text."""
        return f"{self.title}\n{self.text}"

    @property
    def words(self) -> frozenset[str]:
        """Its words without order, case and punctuation."""
        return frozenset(re.findall(r"\w+", self.said.casefold()))


@dataclass(frozen=True)
class Source:
    """The folder as read: short descriptions of facets and tags, packages in the order of their hashes."""

    names: dict[str, str]
    tags: list[str]
    packages: list[Package]
    date: str


@dataclass(frozen=True)
class Slice:
    """The cut: the tags in force, the new tag, and packages whose tags are all among them."""

    tags: list[str]
    new_tag: str
    exemplars: list[Package]
    calibration: list[Package]
    contents: list[Package]
    new_contents: list[Package]


def read(folder: Path) -> Source:
    """Reads the folder."""
    texts = {
        stanza["Description-md5"]: stanza["Description-en"]
        for stanza in stanzas(one(folder, "main_i18n_Translation-en"))
    }
    names = vocabulary(folder / "vocabulary")
    found = (package(stanza, texts, names) for stanza in stanzas(one(folder, "main_binary-amd64_Packages")))
    released = next(fields["Date"] for fields in stanzas(one(folder, "InRelease")) if "Date" in fields)
    return Source(
        names=names,
        tags=sorted(tag for tag in names if "::" in tag and not GIVEN_AWAY.match(tag)),
        packages=sorted((one for one in found if one is not None), key=lambda package: package.order),
        date=parsedate_to_datetime(released).date().isoformat(),
    )


def one(folder: Path, name: str) -> Path:
    """Return the folder's only file with this ending: apt puts the host before it."""
    found = sorted(folder.glob(f"*{SUITE}{name}"))
    if len(found) != 1:
        raise SystemExit(f"{folder} has {len(found)} files *{SUITE}{name}, expected one: see examples/README.md")
    return found[0]


def stanzas(path: Path) -> Iterator[Stanza]:
    """Yield the stanzas of a file in Debian's control format; continuation lines keep their line breaks."""
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        fields: Stanza = {}
        name = ""
        for line in block.splitlines():
            if line[:1] == " ":
                fields[name] += f"\n{line[1:]}"
            elif ": " in line or line.endswith(":"):
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def vocabulary(path: Path) -> dict[str, str]:
    """Short descriptions of the facets (`game`) and tags (`game::puzzle`) of the vocabulary."""
    found = ((stanza.get("Facet") or stanza["Tag"], stanza["Description"]) for stanza in stanzas(path))
    return {key: text.split("\n")[0] for key, text in found}


def package(stanza: Stanza, texts: dict[str, str], names: dict[str, str]) -> Package | None:
    """Return a package of the list; None without a counted tag, without a text, or with an address in its text."""
    tags = [tag for tag in re.split(r",\s*", stanza.get("Tag", "")) if tag in names and not GIVEN_AWAY.match(tag)]
    if not tags:
        return None
    name = stanza["Package"]
    source = stanza.get("Source", name).split()[0]
    title, _, rest = texts[stanza["Description-md5"]].partition("\n")
    found = Package(name, source, title, first_paragraph(rest), tuple(tags))
    return None if not found.text or ADDRESS.search(found.said) else found


def first_paragraph(description: str) -> str:
    """The first paragraph of a long description in one line: as many whole words as TEXT_CHARS has room for."""
    words = re.split(r"^\.$", description, maxsplit=1, flags=re.MULTILINE)[0].split()
    line = " ".join(words)
    if len(line) <= TEXT_CHARS:
        return line
    return line[: TEXT_CHARS + 1].rpartition(" ")[0]


def split(packages: Iterable[Package]) -> tuple[list[Package], list[Package], list[Package]]:
    """Training, calibration and test packages: all packages of one source are on one side."""
    sides: tuple[list[Package], list[Package], list[Package]] = ([], [], [])
    for each in packages:
        share = int.from_bytes(hashlib.sha256(each.source.encode()).digest()[:8]) / 2**64
        side = 2 if share < TEST_SHARE else 1 if share < TEST_SHARE + CALIBRATION_SHARE else 0
        sides[side].append(each)
    return sides


class Seen:
    """Texts as sets of words, to find near-duplicates: they share at least OVERLAP_PERCENT of their words (Jaccard).

    Two sets that share so much have a word in common among the rarest of each, so only those are looked up: with n
    words, all but ceil(OVERLAP_PERCENT% of n) - 1 (prefix filtering, Chaudhuri et al., ICDE 2006).
    """

    def __init__(self, packages: Iterable[Package]) -> None:
        self._counts = Counter(word for each in packages for word in each.words)
        self._by_word: defaultdict[str, list[frozenset[str]]] = defaultdict(list)

    def unlike(self, found: Iterable[Package]) -> list[Package]:
        """Return the packages that are no near-duplicate of an earlier one; they count as seen."""
        kept = []
        for each in found:
            words = each.words
            rare = sorted(words, key=lambda word: (self._counts[word], word))
            rare = rare[: len(rare) - math.ceil(OVERLAP_PERCENT * len(rare) / 100) + 1]
            near = (other for word in rare for other in self._by_word[word])
            if all(100 * len(words & other) < OVERLAP_PERCENT * len(words | other) for other in near):
                kept.append(each)
                for word in rare:
                    self._by_word[word].append(words)
        return kept


def few_a_tag(train: list[Package]) -> list[Package]:
    """Thins out frequent tags: a package is kept if one of its tags has fewer than ENOUGH_EXEMPLARS packages so far."""
    counts: Counter[str] = Counter()
    kept = []
    for each in train:
        if any(counts[tag] < ENOUGH_EXEMPLARS for tag in each.tags):
            kept.append(each)
            counts.update(each.tags)
    return kept


def closed(found: Iterable[Package], tags: set[str]) -> list[Package]:
    """Return the packages whose tags are all among `tags`."""
    return [each for each in found if tags.issuperset(each.tags)]


def naming(found: Iterable[Package], tag: str, name: str) -> list[Package]:
    """Return the packages that carry a tag and contain its name as whole words, fewest other characters first."""
    pattern = re.compile(rf"\b{re.escape(name.casefold())}\b")
    named = [each for each in found if tag in each.tags and pattern.search(each.said.casefold())]
    return sorted(named, key=lambda each: len(each.said))


def pick_new_tag(source: Source, packages: list[Package]) -> str:
    """The tag to hold out, an easy one: the one whose name makes up most of its NEW_TAG_CONTENTS plainest packages.

    A name shared by two tags is skipped; the first of equals wins.
    """
    shared = Counter(source.names[tag] for tag in source.tags)

    def plainness(tag: str) -> float:
        name = source.names[tag]
        return sum(len(name) / len(each.said) for each in naming(packages, tag, name)[:NEW_TAG_CONTENTS])

    return max((tag for tag in source.tags if shared[source.names[tag]] == 1), key=plainness)


def cut(source: Source) -> Slice:
    """Apply all rules, in the order of the README."""
    parts = split(source.packages)
    seen = Seen(source.packages)
    train, calibration, test = (seen.unlike(part) for part in (parts[0], parts[1], parts[2]))
    new_tag = pick_new_tag(source, train)
    tags = set(source.tags) - {new_tag}
    exemplars = few_a_tag(closed(train, tags))
    shown = {tag for each in exemplars for tag in each.tags}
    return Slice(
        tags=sorted(tags),
        new_tag=new_tag,
        exemplars=exemplars,
        calibration=closed(calibration, shown),
        contents=closed(test, shown)[:CONTENTS],
        new_contents=naming(train, new_tag, source.names[new_tag])[:NEW_TAG_CONTENTS],
    )


def broken() -> list[Row]:
    """Events that can never be tagged: the value as base64, or as `before`, `repeat` written `times` times, `after`."""

    def packed(why: str, key: str | None, value: bytes) -> Row:
        return {"why": why, "key": key, "base64": b64encode(value).decode()}

    return [
        packed("undecodable: not UTF-8", "broken-1", b'{"id": "broken-1", "title": "caf\xe9 \xff\xfe"}'),
        packed("not JSON", "broken-2", b"A plain line of text where an event should be"),
        packed("JSON that was cut off", "broken-3", b'{"id": "broken-3", "title": "Puzzle ga'),
        packed("wrong type: id is a number", "broken-4", b'{"id": 4, "title": "Puzzle game"}'),
        packed("wrong type: text is a list", "broken-5", b'{"id": "broken-5", "text": ["Puzzle", "game"]}'),
        packed("id is missing", None, b'{"title": "Puzzle game"}'),
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


def parent(source: Source, tag: str) -> str:
    """Return a tag's parent tag (`field::biology` of `field::biology:bioinformatics`), otherwise its facet."""
    broader, _, rest = tag.rpartition(":")
    return broader if rest and broader in source.tags else tag.partition("::")[0]


def write(source: Source, found: Slice, folder: Path) -> None:
    """Writes the slice as the files of the README."""

    def tag(key: str) -> Row:
        facet, _, last = key.partition("::")
        short = last.rpartition(":")[2].replace("-", " ")
        row: Row = {"id": key, "name": f"{source.names[key]} ({source.names[facet]})"}
        if short != source.names[key].casefold():
            row["aliases"] = [short]
        return row | {"parents": [parent(source, key)]}

    def event(each: Package) -> Row:
        return {"id": each.id, "title": each.title, "text": each.text, "language": "en"}

    def exemplar(each: Package) -> Row:
        row: Row = {"id": each.id, "source": "people", "title": each.title, "text": each.text}
        return row | {"accepted": each.tags, "rejected": []}

    files: dict[str, list[Row]] = {
        "tags.jsonl": [tag(key) for key in found.tags],
        "exemplars.jsonl": [exemplar(each) for each in found.exemplars],
        "calibration.jsonl": [exemplar(each) for each in found.calibration],
        "content.jsonl": [event(each) for each in found.contents],
        "answers.jsonl": [{"id": each.id, "accepted": each.tags} for each in found.contents],
        "new_tag.json": [tag(found.new_tag)],
        "new_tag_content.jsonl": [event(each) for each in found.new_contents],
        "broken.jsonl": broken(),
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_bytes(text.encode())


def report(source: Source, found: Slice) -> Row:
    """The figures of the README: counts, means, and shares in percent."""
    per_tag = Counter(tag for each in found.exemplars for tag in each.tags)
    shown = {tag for each in found.contents for tag in each.tags}

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}"

    row: Row = {"date of the lists": source.date, "packages": len(source.packages)}
    row |= {name: len(getattr(found, name)) for name in ("tags", "exemplars", "calibration", "contents")}
    for name, part in ("exemplar", found.exemplars), ("content", found.contents):
        row[f"tags a {name}"] = f"{sum(len(each.tags) for each in part) / len(part):.2f}"
        row[f"characters a {name}"] = f"{sum(len(each.said) for each in part) / len(part):.0f}"
    for least in (1, 2, 5, 10):
        enough = sum(per_tag[tag] >= least for tag in found.tags)
        row[f"% of tags with {least} exemplars or more"] = share(enough, len(found.tags))
    row["% of tags that a content carries"] = share(len(shown), len(found.tags))
    row["new tag"] = source.names[found.new_tag]
    return row


def main() -> None:
    """Cuts, writes, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="Cut the example data from Debian's package lists.")
    parser.add_argument("folder", type=Path, help="with the lists of bookworm main amd64, and debtags' vocabulary")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this)")
    arguments = parser.parse_args()
    source = read(arguments.folder)
    found = cut(source)
    write(source, found, arguments.out)
    print(json.dumps(report(source, found), indent=2))


if __name__ == "__main__":
    main()
