"""Lays out a Triton server as in NVIDIA's image, from an environment with nvidia-pytriton.

    python images/triton.py ENVIRONMENT FOLDER

`FOLDER/bin/tritonserver` finds backends and caches beside itself without options; its libraries are in `FOLDER/lib`.
"""

import shutil
import sys
from pathlib import Path

from tagbus.stream.local.environment import Environment


def main() -> None:
    """Move the server out of the environment, which keeps the imports of its Python backend."""
    environment, target = Environment(Path(sys.argv[1])), Path(sys.argv[2])
    server = environment.server
    packages = server.parents[3]
    environment.backends(target / "backends")
    shutil.move(environment.caches, target / "caches")
    (target / "bin").mkdir()
    shutil.move(server, target / "bin" / server.name)
    shutil.move(packages / "nvidia_pytriton.libs", target / "lib")
    shutil.rmtree(packages / "pytriton")


if __name__ == "__main__":
    main()
