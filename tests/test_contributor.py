"""The contributors' page: the tree has a line for every file, and none for a deleted file."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributor.md").read_text()
TREE = re.compile(r"^```text\n(stream/.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"( *)(\S+) {2,}(\S.*)")


def shown() -> list[Path]:
    """The files of the tree on the page, relative to the checkout; the line of a folder ends with a slash."""
    (tree,) = TREE.findall(PAGE)
    files, folders = [], list[str]()
    for line in tree.splitlines():
        parsed = LINE.fullmatch(line)
        assert parsed, f"expected a name, two spaces and what it is for: {line!r}"
        depth, name = len(parsed[1]) // 2, parsed[2]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            files.append(Path("".join([*folders, name])))
    return files


@pytest.mark.parametrize("top", ["stream", "models", "bench", "tests"])
def test_every_file_has_a_line(top: str) -> None:
    code = {path.relative_to(ROOT) for path in (ROOT / top).rglob("*.py") if path.name != "__init__.py"}
    assert sorted(map(str, code - set(shown()))) == []


def test_no_line_names_a_file_that_is_not_there() -> None:
    assert [str(path) for path in shown() if not (ROOT / path).is_file()] == []


def test_no_file_has_two_lines() -> None:
    assert [str(path) for path, lines in Counter(shown()).items() if lines > 1] == []


def test_every_path_in_the_text_is_there() -> None:
    """Paths that stand outside the tree: `stream/bus/publish/transaction.py`."""
    named = set(re.findall(r"`((?:stream|models|bench|tests|examples|triton_repo|docs)/[\w/.]*)`", PAGE))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_no_file_is_longer_than_one_idea() -> None:
    """350 lines, as the conventions have it."""
    code = [path for top in ("stream", "models", "bench", "tests", "examples") for path in (ROOT / top).rglob("*.py")]
    assert [str(path) for path in code if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []


def test_no_package_has_more_than_14_modules() -> None:
    packages = {path.parent for top in ("stream", "models") for path in (ROOT / top).rglob("__init__.py")}
    modules = {str(package): sum(path.name != "__init__.py" for path in package.glob("*.py")) for package in packages}
    assert {package: count for package, count in modules.items() if count > 14} == {}
