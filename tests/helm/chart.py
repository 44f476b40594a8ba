"""The chart as the real helm renders it, and schemas that its objects must meet."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "tagbus"
VALUES: Final = yaml.safe_load((CHART / "values.yaml").read_text())
# The Kubernetes that helm renders for and objects are checked against.
KUBERNETES: Final = "1.34"
RELEASE: Final = "release"
# What takes objects that Kubernetes itself does not know.
CRDS: Final = Path(__file__).parent / "crds"

Object = dict[str, Any]
# What differs from values.yaml.
Values = Mapping[str, Any]


@cache
def helm() -> str:
    """The path of helm: `make test` builds it. Without one the test is skipped, and fails when CI=true."""
    ours = ROOT / ".cache" / "tools" / "helm"
    found = str(ours) if ours.exists() else shutil.which("helm")
    if found is None:
        reason = "no helm: `make .cache/tools/helm` builds it, with Go"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(
    command: Sequence[str], *arguments: str, values: Values | None = None, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """A helm command on the chart with these values; it may fail."""
    return subprocess.run(
        [helm(), *command, str(chart), "--kube-version", KUBERNETES, *arguments, "--values", "-"],
        input=yaml.safe_dump(dict(values or {})),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def render(values: Values | None = None, files: Sequence[str] = (), chart: Path = CHART) -> list[Object]:
    """The objects of a release with these values over those of the files beside values.yaml."""
    done = run(("template", RELEASE), *(f"--values={chart / name}" for name in files), values=values, chart=chart)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


def one(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The only object of that kind, and of that name after the release's."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    return found


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The pods that the objects make, by kind and name."""
    for each in objects:
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            yield f"{each['kind']} {each['metadata']['name']}", template


def containers(pod: Object) -> list[Object]:
    """All of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def validate(each: Object) -> None:
    """Raises ValidationError for an object that Kubernetes, or the operator whose object it is, would refuse."""
    schema = _custom().get((each["apiVersion"], each["kind"]))
    if schema is None:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    else:
        jsonschema.validate(each, schema)


@cache
def _custom() -> dict[tuple[str, str], Object]:
    """The schemas of the definitions in crds/, as strict as an API server: it says which fields it does not know."""
    found = {}
    for path in CRDS.glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        for version in definition["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    return found


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    if str(schema.get("pattern")).startswith("^(?i)"):
        # Go's: a flag stands first in Python.
        strict["pattern"] = f"(?i)^{schema['pattern'].removeprefix('^(?i)')}"
    return strict


def variables(objects: Sequence[Object], pod: Object) -> dict[str, str]:
    """The environment of a pod's first container; what comes from a Secret stands as JSON that any setting takes."""
    (container,) = pod["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for each in container.get("env", []):
        found[each["name"]] = each.get("value", '{"sasl.password": "from a secret"}')
    return found
