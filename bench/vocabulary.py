"""Reading vocabularies: pyoxigraph beside rdflib, a SKOS import, and a million lines, each in a separate process.

    python bench/vocabulary.py [--concepts 30000] [--lines 1000000]

A concept has 12 statements: three preferred labels, four alternative ones, a definition, a broader concept, a match,
its type and its scheme. Writes bench/results/vocabulary.json: CPU seconds, and the peak memory of the process in MB.
"""

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyoxigraph
import rdflib

from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import Choice, Remarks
from tagbus.stream.vocabulary.rdf import statements

RESULTS = Path(__file__).parent / "results" / "vocabulary.json"
SKOS = "http://www.w3.org/2004/02/skos/core#"
TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
SUFFIXES = {"nt": "nt", "ttl": "turtle", "rdf": "xml", "jsonld": "json-ld"}
WORDS = [
    "river",
    "stone",
    "garden",
    "market",
    "signal",
    "theory",
    "island",
    "weather",
    "engine",
    "letter",
    "forest",
    "silver",
    "harbour",
    "method",
]


def vocabulary(folder: Path, concepts: int) -> None:
    """Write the same vocabulary in four formats."""
    made = random.Random(1)  # noqa: S311 - not a secret
    with (folder / "v.nt").open("w", encoding="utf-8") as file:
        for number in range(concepts):
            name = " ".join(made.choices(WORDS, k=3)) + f" {number}"
            texts = [("prefLabel", name, "en"), ("prefLabel", f"{name} fi", "fi"), ("prefLabel", f"{name} sv", "sv")]
            texts += [("altLabel", f"{name} {one}", made.choice(["en", "fi"])) for one in range(4)]
            texts += [("definition", f"{name} is what it is. " * 6, "en")]
            links = [
                (f"{SKOS}exactMatch", f"http://elsewhere.org/{number}"),
                (f"{SKOS}inScheme", "http://example.org/v"),
            ]
            links += [(TYPE, f"{SKOS}Concept")]
            links += [(f"{SKOS}broader", f"http://example.org/v/{made.randrange(number)}")] if number else []
            for word, text, language in texts:
                file.write(f'<http://example.org/v/{number}> <{SKOS}{word}> "{text}"@{language} .\n')
            for iri, value in links:
                file.write(f"<http://example.org/v/{number}> <{iri}> <{value}> .\n")
    for form, suffix in (("turtle", "ttl"), ("rdfxml", "rdf"), ("jsonld", "jsonld")):
        found = pyoxigraph.parse(path=folder / "v.nt", format=statements.FORMATS["ntriples"])
        pyoxigraph.serialize(found, folder / f"v.{suffix}", statements.FORMATS[form], prefixes={"skos": SKOS})


def lines(path: Path, count: int) -> None:
    """Write a taxonomy as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            tag = {"id": f"http://example.org/{number}", "name": f"tag {number}", "aliases": [f"alias {number}"]}
            parents = {"parents": [f"http://example.org/{number // 10}"]} if number else {}
            file.write(json.dumps({**tag, **parents}) + "\n")


def by_pyoxigraph(path: Path) -> int:
    """Stream every statement once, as the import does."""
    found = pyoxigraph.parse(path=path)
    return sum(1 for quad in found if quad.subject and quad.predicate.value and quad.object)


def by_rdflib(path: Path) -> int:
    """Load the whole graph."""
    return len(rdflib.Graph().parse(path, format=SUFFIXES[path.suffix[1:]]))


def by_import(path: Path) -> int:
    """Run the steps of `tagbus tags import` on a file, before Kafka."""
    with path.open("rb") as stream, Comparison() as comparison:
        choice = Choice(language="en" if path.suffix != ".jsonl" else None)
        comparison.load_after(forms.read(str(path), stream, forms.form_of(path), choice, Remarks()), print)
        return comparison.counts().added


READERS: dict[str, Callable[[Path], int]] = {"pyoxigraph": by_pyoxigraph, "rdflib": by_rdflib, "import": by_import}


def one(reader: str, path: Path) -> dict[str, object]:
    """Read once, in this process."""
    began = time.process_time()
    count = READERS[reader](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "reader": reader,
        "file": path.name,
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "count": count,
        "cpu_seconds": round(time.process_time() - began, 2),
        "peak_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=30_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary(folder, given.concepts)
        lines(folder / "tags.jsonl", given.lines)
        work = [(reader, f"v.{suffix}") for suffix in SUFFIXES for reader in READERS] + [("import", "tags.jsonl")]
        for reader, file in work:
            command = [sys.executable, __file__, "--one", reader, str(folder / file)]
            rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            print(rows[-1])
    about = {"concepts": given.concepts, "lines": given.lines, "machine": platform.processor() or platform.machine()}
    RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
