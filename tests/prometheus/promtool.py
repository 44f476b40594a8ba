"""promtool: Debian's, from the path or from where `make test` puts it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "helm" / "tagbus" / "rules").glob("*.yaml"))
FETCHED = ROOT / ".cache" / "tools" / "usr" / "bin" / "promtool"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it. The test is skipped where it is not, and fails if CI=true."""
    program = shutil.which("promtool") or (str(FETCHED) if FETCHED.exists() else "")
    if not program:
        words = f"no promtool: `make {FETCHED.relative_to(ROOT)}` fetches it"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def alerts() -> dict[str, dict[str, object]]:
    """Every alert by its name."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {str(rule["alert"]): rule for group in groups for rule in group["rules"] if "alert" in rule}


def expressions() -> list[str]:
    """The expressions of all rules."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [str(rule["expr"]) for group in groups for rule in group["rules"]]


def check(tests: dict[str, object], folder: Path) -> str:
    """Run unit tests over the rules; returns what promtool says of those that fail, or nothing.

    What an alert says in its annotations is left out: the tests are about when it fires.
    """
    quiet = []
    for file in RULES:
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule.pop("annotations", None)
        quiet.append(folder / file.name)
        quiet[-1].write_text(yaml.safe_dump(rules))
    path = folder / "tests.yaml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", **tests, "rule_files": list(map(str, quiet))}))
    done = promtool("test", "rules", path)
    return "" if done.returncode == 0 else done.stdout + done.stderr
