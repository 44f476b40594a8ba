"""Prints the contents of an image as CycloneDX 1.6 JSON: an environment's distributions, and Debian's packages.

python3 images/sbom.py /opt/tagbus
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path


def python_components(folder: Path) -> Iterator[dict[str, object]]:
    """Return the distributions installed in a virtual environment."""
    paths = [str(path) for path in folder.glob("lib/python3*/site-packages")]
    for one in sorted(distributions(path=paths), key=lambda found: found.metadata["Name"].lower()):
        name, version = one.metadata["Name"].lower().replace("_", "-"), one.version
        licences = [{"license": {"name": words}}] if (words := _licence(one)) else []
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "licenses": licences,
        }


def _licence(one: Distribution) -> str:
    """Return the licence in one line: some distributions have the whole text in that field."""
    given = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
    classified = [
        line.rpartition(" :: ")[2] for line in one.metadata.get_all("Classifier", []) if line.startswith("License")
    ]
    return given if given and "\n" not in given else ", ".join(classified)


def debian_components() -> Iterator[dict[str, object]]:
    """Return the packages of the base; none if it is not Debian's."""
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture}\n"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except FileNotFoundError:
        return
    for line in listed.splitlines():
        name, version, architecture = line.split()
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
        yield {"type": "library", "name": name, "version": version, "purl": purl}


def main() -> None:
    """Print the document to standard output."""
    components = [*python_components(Path(sys.argv[1])), *debian_components()]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
