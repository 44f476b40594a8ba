"""The Dockerfile and what it installs. Images are built and started by `make image-check`."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from tagbus.stream.cli.commands import service_commands
from tagbus.stream.local.environment import NEEDS, PYTRITON

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Services, and what holds a file alone.
TARGETS = ("cpu", "gpu", "views", "triton", "sbom")


def pins(path: Path) -> Mapping[str, str]:
    """The versions in a file of name==version, by the name as registries compare names."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {
        re.sub(r"[-_.]+", "-", name).lower(): number for name, _, number in (line.partition("==") for line in lines)
    }


def names(image: str) -> set[str]:
    """What the list of an image names."""
    return set((IMAGES / f"{image}.txt").read_text().split())


@cache
def script(name: str) -> ModuleType:
    """A script of images/ as a module."""
    spec = importlib.util.spec_from_file_location(name, IMAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def stages() -> Mapping[str, tuple[str, list[str]]]:
    """Each stage: what it is built from, and its instructions, each on one line."""
    found: dict[str, tuple[str, list[str]]] = {}
    instructions: list[str] = []
    for line in re.sub(r"\\\n\s*", " ", DOCKERFILE).splitlines():
        if started := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            instructions = []
            found[started[2]] = (started[1], instructions)
        elif line and not line.startswith("#"):
            instructions.append(line)
    return found


def whole(target: str) -> list[str]:
    """The instructions of a target with those of the stages under it."""
    below, own = stages()[target]
    return [*(whole(below) if below in stages() else []), *own]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_a_public_image_pinned_by_its_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-\w+@sha256:[0-9a-f]{64}", base)
    from_ = {base for base, _ in stages().values()}
    assert from_ <= {"${BASE}", "scratch", *stages()}


@pytest.mark.parametrize("target", TARGETS[:-1])
def test_an_image_is_no_root_and_says_how_it_is(target: str) -> None:
    lines = whole(target)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert [line for line in lines if line.startswith("VOLUME")] == ['VOLUME ["/tmp", "/var/lib/tagbus"]']
    for instruction in ("LABEL", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
        assert [line for line in lines if line.startswith(instruction)], instruction


@pytest.mark.parametrize("target", TARGETS)
def test_what_builds_stays_in_the_stages_that_build(target: str) -> None:
    lines = whole(target)
    assert not [
        line for line in lines if re.search(r"apt-get|pip (install|wheel)|images/install|COPY (?!--from=build)", line)
    ]


def test_a_build_without_a_target_is_the_worker_on_cpus() -> None:
    assert list(stages())[-1] == "cpu"


def test_the_command_of_an_image_is_one_of_tagbus() -> None:
    commands = service_commands()
    for target in ("cpu", "gpu", "views"):
        (entry,) = [line for line in whole(target) if line.startswith("ENTRYPOINT")]
        command = [line for line in whole(target) if line.startswith("CMD")][-1]
        assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["tagbus"]
        assert json.loads(command.removeprefix("CMD "))[0] in commands


def test_only_what_a_build_needs_is_sent_to_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = {
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in line.split()
    }
    assert ignored[0] == "*"
    assert {word.removeprefix("!") for word in ignored if word.startswith("!")} == copied
    assert all((ROOT / word).exists() for word in copied)


def test_the_lists_are_what_the_extras_need() -> None:
    for name, text in script("lists").lists().items():
        assert (IMAGES / name).read_text() == text, f"run `make image-lists`: {name}"


@pytest.mark.parametrize("image", ["cpu", "gpu", "views"])
def test_every_distribution_of_an_image_is_pinned(image: str) -> None:
    assert names(image) <= pins(ROOT / "constraints.txt").keys()


def test_the_gpu_image_has_one_onnx_runtime_that_of_cuda() -> None:
    """onnxruntime and onnxruntime-gpu own one module: whichever is installed last would count."""
    assert "onnxruntime-gpu" in names("gpu")
    assert "onnxruntime" not in names("gpu")
    assert names("cpu") - names("gpu") == {"onnxruntime"}
    # By name alone: with dependencies pip would bring the other one, which tagbus asks for.
    assert "--no-deps" in (IMAGES / "install").read_text()
    for library in ("nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cufft", "nvidia-curand"):
        assert library in names("gpu")


def test_no_image_has_what_only_training_and_tests_need() -> None:
    assert not names("cpu") & {"torch", "pytest", "setuptools", "pip", "matplotlib", "transformers"}


def test_the_triton_image_is_the_server_that_the_tests_run() -> None:
    there = pins(IMAGES / "triton.txt")
    for wanted in (PYTRITON, *NEEDS):
        name, _, number = wanted.partition("==")
        assert there[name] == number
    assert (
        there.items() - {("nvidia-pytriton", there["nvidia-pytriton"]), ("numpy", there["numpy"])}
        <= pins(ROOT / "constraints.txt").items()
    )


def test_the_list_of_what_is_in_an_image_is_cyclonedx() -> None:
    sbom = script("sbom")
    components = list(sbom.python_components(Path(sys.prefix)))
    numpy = next(one for one in components if one["name"] == "numpy")
    assert numpy["version"] == version("numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert all("\n" not in str(one["licenses"]) for one in components)
