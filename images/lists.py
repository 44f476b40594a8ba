"""Writes the package lists of the images: cpu.txt, gpu.txt and views.txt, names only: constraints.txt has the versions.

    make image-lists

pip installs exactly these lists (--no-deps): the gpu image has onnxruntime-gpu instead of onnxruntime, which tagbus
requires; both install the same module. The lists are the dependencies of the extras, by the metadata installed here.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).parent
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
# Training, tests, local servers and label trees are left out.
EXTRAS = {"cpu": ("embedded", "hnsw", "llm", "otel", "registry", "skos", "triton"), "views": ("otel", "views")}
# A judge of 3 MB for trials: compose.yaml starts it.
MORE = ("sparrow-decider",)
# CUDA and cuDNN, as required by onnxruntime-gpu's extras; it is installed only in the image.
GPU = (
    "onnxruntime-gpu",
    "nvidia-cublas",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-cufft",
    "nvidia-curand",
    "nvidia-nvjitlink",
)


def canonical(name: str) -> str:
    """Normalise a name as registries do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(extras: tuple[str, ...]) -> set[str]:
    """Return every distribution that tagbus needs with these extras."""
    optional = PROJECT["optional-dependencies"]
    open_ = [
        Requirement(line) for line in (*PROJECT["dependencies"], *(one for each in extras for one in optional[each]))
    ]
    found: dict[str, set[str]] = {}
    while open_:
        asked = open_.pop()
        name, more = canonical(asked.name), asked.extras | {""}
        if more <= found.get(name, set()):
            continue
        found.setdefault(name, set()).update(more)
        open_ += (one for one in _requirements(name) if _applies(one, found[name]))
    return set(found)


def _requirements(name: str) -> Iterator[Requirement]:
    return map(Requirement, requires(name) or ())


def _applies(one: Requirement, extras: set[str]) -> bool:
    return one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)


def lists() -> dict[str, str]:
    """Return the text of each list, by its name."""
    names = {image: needed(extras) for image, extras in EXTRAS.items()}
    names["cpu"] |= set(MORE)
    names["gpu"] = names["cpu"] - {"onnxruntime"} | set(GPU)
    return {f"{image}.txt": "".join(f"{name}\n" for name in sorted(each)) for image, each in names.items()}


if __name__ == "__main__":
    for name, text in lists().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"images/{name}: {len(text.splitlines())} distributions\n")
