"""Generates the settings of the service in tagbus/values.schema.json from the code.

    make reference

Secret settings are left out: values are stored in the cluster unencrypted. The rest of the schema is kept by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tagbus.stream.app.components import REGISTRY
from tagbus.stream.config import Settings
from tagbus.stream.config.kafka import CONFIDENTIAL

SCHEMA = Path(__file__).parent / "tagbus" / "values.schema.json"
# Keywords that validate or describe a value.
KEPT = frozenset(
    {"additionalProperties", "const", "description", "enum", "items", "pattern", "properties", "type"}
    | {"exclusiveMaximum", "exclusiveMinimum", "maxLength", "maximum", "minLength", "minimum"}
)
# A constant, because helm says to any other value: "value must be 'set in ...'".
ELSEWHERE = "set in secrets.kafkaPassword or secrets.kafkaSecrets"


def settings_schema() -> dict[str, Any]:
    """Return the schema of `settings`: every section and field, without secrets."""
    whole = Settings.model_json_schema()
    sections = {name: _plain(field, whole["$defs"]) for name, field in whole["properties"].items()}
    options = sections["kafka"]["properties"]["options"]
    options["properties"] = {name: {"const": ELSEWHERE} for name in sorted(CONFIDENTIAL)}
    sections["components"] = _object({one.name: _plain(one.settings.model_json_schema(), {}) for one in REGISTRY})
    return _object(sections)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(schema: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without references, defaults and null, which in Helm values removes a default."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = named[schema["$ref"].rpartition("/")[2]]
        else:
            (given,) = (one for one in schema["anyOf"] if one.get("type") != "null")
            schema = given | {name: value for name, value in schema.items() if name != "anyOf"}
    kept = {name: value for name, value in schema.items() if name in KEPT}
    if "properties" in kept:
        fields = kept["properties"].items()
        kept["properties"] = {name: _plain(one, named) for name, one in fields if not _is_secret(one)}
    return kept


def _is_secret(schema: dict[str, Any]) -> bool:
    return '"format": "password"' in json.dumps(schema)


def written(schema: dict[str, Any]) -> str:
    """Return the schema file with these settings."""
    whole = json.loads(SCHEMA.read_text())
    whole["$defs"]["settings"] = schema
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written(settings_schema()))
    sys.stdout.write(f"{SCHEMA}: written\n")
