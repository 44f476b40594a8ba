"""The operators' page: its tables list the settings with their defaults, the metrics and the exit codes of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY as METRICS

from tagbus.stream import errors, telemetry
from tagbus.stream.app.components import REGISTRY
from tagbus.stream.config import PREFIX, Settings

PAGE = (Path(__file__).parents[1] / "docs" / "operator.md").read_text()
ROW = re.compile(rf"^\| (`{PREFIX}[^|]*) \| ([^|]*) \|", re.MULTILINE)
# Differs from machine to machine.
HOST_NAME = f"{PREFIX}KAFKA__INSTANCE"


def shown() -> dict[str, str]:
    """The default of each setting on the page; a row may name several: `..._REGISTRY__USER`, `__PASSWORD`."""
    found = {}
    for cell, default in ROW.findall(PAGE):
        names = re.findall(r"`(\w+)`", cell)
        for name in names:
            whole = name if name.startswith(PREFIX) else names[0].rpartition("__")[0] + name
            found[whole] = default.strip().strip("`")
    return found


def written(default: object) -> str:
    """A default as the page writes it."""
    if default is None:
        return "unset"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def sections() -> Iterator[tuple[str, dict[str, str]]]:
    """The sections of the tree with the defaults of their fields, by variable; `components` has no fields here."""
    for section, field in Settings.model_fields.items():
        model = type(field.default)
        if hasattr(model, "model_fields"):
            fields = {
                one.alias or name: one.get_default(call_default_factory=True)
                for name, one in model.model_fields.items()
            }
            yield section, {f"{PREFIX}{section}__{name}".upper(): written(value) for name, value in fields.items()}


def components() -> dict[str, str]:
    """The defaults of all components' fields by variable."""
    return {
        f"{PREFIX}COMPONENTS__{one.name}__{name}".upper(): written(field.default)
        for one in REGISTRY
        for name, field in one.settings.model_fields.items()
    }


def test_every_setting_is_listed_with_its_default() -> None:
    code = {name: default for _, fields in sections() for name, default in fields.items() if name != HOST_NAME}
    page = shown()
    assert {name: page.get(name) for name in code} == code


def test_no_setting_is_listed_that_there_is_not() -> None:
    code = {name for _, fields in sections() for name in fields} | components().keys()
    assert shown().keys() - code == set()


def test_what_is_listed_of_a_component_has_its_default() -> None:
    code, page = components(), shown()
    assert {name: page[name] for name in code.keys() & page.keys()} == {
        name: code[name] for name in code.keys() & page.keys()
    }
    assert all(any(f"__{one.name.upper()}__" in name for name in page) for one in REGISTRY)


def test_the_metrics_are_those_of_telemetry() -> None:
    suffix = {"counter": "_total", "info": "_info"}
    code = {one.name + suffix.get(one.type, "") for one in METRICS.collect() if one.name.startswith("tagbus_")}
    assert next(iter(telemetry.READY.describe())).name in code
    assert set(re.findall(r"`(tagbus_[a-z_]+)", PAGE)) == code


def test_the_exit_codes_are_those_of_the_error_tree() -> None:
    table = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.TagbusError)]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == {0, *(one.exit_code for one in kinds)}
