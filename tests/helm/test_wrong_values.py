"""Wrong values are refused before anything is installed, by a line that names the field and says what is wrong."""

from typing import Any

import pytest

from tests.helm import chart

# The values, the field as the message names it, and a part of what it says.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"taggers": {}}, "", "'taggers' not allowed"),
    ({"tagger": {"replica": 2}}, "/tagger", "'replica' not allowed"),
    ({"tagger": {"replicas": "two"}}, "/tagger/replicas", "want integer"),
    ({"tagger": {"replicas": 0}}, "/tagger/replicas", "want 1"),
    ({"tagger": {"startupSeconds": 1}}, "/tagger/startupSeconds", "want 30"),
    ({"tagger": {"resources": {"limit": {}}}}, "/tagger/resources", "'limit' not allowed"),
    (
        {"tagger": {"resources": {"limits": {"memory": "2GB"}}}},
        "/tagger/resources/limits/memory",
        "'2GB' does not match",
    ),
    ({"tagger": {"persistence": {"size": "10"}}}, "/tagger/persistence/size", "does not match"),
    ({"tagger": {"autoscaling": {"by": "both"}}}, "/tagger/autoscaling/by", "'none', 'lag', 'cpu'"),
    ({"tagger": {"autoscaling": {"by": ["lag", "cpu"]}}}, "/tagger/autoscaling/by", "'none', 'lag', 'cpu'"),
    ({"tagger": {"autoscaling": {"hpa": True}}}, "/tagger/autoscaling", "'hpa' not allowed"),
    ({"tagger": {"autoscaling": {"minReplicas": -1}}}, "/tagger/autoscaling/minReplicas", "want 0"),
    ({"tagger": {"autoscaling": {"lag": {"contents": 0}}}}, "/tagger/autoscaling/lag/contents", "want 1"),
    ({"tagger": {"autoscaling": {"cpu": {"utilization": 150}}}}, "/tagger/autoscaling/cpu/utilization", "want 100"),
    ({"feedback": {"enabled": "yes"}}, "/feedback/enabled", "want boolean"),
    ({"image": {"repository": "Tagbus:latest@x"}}, "/image/repository", "does not match"),
    ({"image": {"tag": "0.1:0"}}, "/image/tag", "'0.1:0' does not match"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest", "does not match"),
    ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"),
    ({"settings": {"kafka": {"brokers": ""}}}, "/settings/kafka/brokers", "want 1"),
    ({"settings": {"kafka": {"broker": "a:9092"}}}, "/settings/kafka", "'broker' not allowed"),
    ({"settings": {"kafka": {"secrets": {"sasl.password": "x"}}}}, "/settings/kafka", "'secrets' not allowed"),
    ({"settings": {"memory": {"api_key": "x"}}}, "/settings/memory", "'api_key' not allowed"),
    ({"settings": {"memory": {"kind": "qdrant"}}}, "/settings/memory/kind", "'exact', 'hnsw', 'embedded', 'server'"),
    ({"settings": {"batch": {"contents": 0}}}, "/settings/batch/contents", "want 1"),
    ({"settings": {"batch": {"drain_seconds": "20s"}}}, "/settings/batch/drain_seconds", "want number"),
    ({"settings": {"encoder": {"providers": ["gpu"]}}}, "/settings/encoder/providers/0", "'tensorrt', 'cuda', 'cpu'"),
    ({"settings": {"components": {"literals": {}}}}, "/settings/components", "'literals' not allowed"),
    ({"settings": {"health": {"port": 0}}}, "/settings/health/port", "want 1"),
    ({"settings": {"topics": {"partitions": 0}}}, "/settings/topics/partitions", "want 1"),
    ({"secrets": {"kafkaPassword": "hunter2"}}, "/secrets/kafkaPassword", "want object"),
    ({"secrets": {"qdrantApiKey": {"name": "q"}}}, "/secrets/qdrantApiKey", "'key'"),
    ({"tls": [{"name": "Kafka", "secret": "x"}]}, "/tls/0/name", "does not match"),
    ({"extraEnv": [{"name": "TAGBUS_LLM__URL", "value": "x"}]}, "/extraEnv/0/name", "'not' failed"),
    ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "/extraVolumes/0/name", "'not' failed"),
    ({"runAsUser": 0}, "/runAsUser", "want 1"),
    ({"triton": {"models": {"load": []}}}, "/triton/models/load", "want 1"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable", "want 1"),
    ({"topologySpread": {"zone": "Always"}}, "/topologySpread/zone", "'DoNotSchedule', 'ScheduleAnyway', 'none'"),
    ({"retraining": {"enabled": True}}, "/retraining/command", "want 1"),
    ({"retraining": {"schedule": "hourly"}}, "/retraining/schedule", "'hourly' does not match"),
    # Fields that are right alone.
    ({"tagger": {"replicas": 13}}, "tagger.replicas", "13 is wrong, expected at most settings.topics.partitions, 12"),
    (
        {"tagger": {"autoscaling": {"by": "lag", "maxReplicas": 24}}},
        "tagger.autoscaling.maxReplicas",
        "24 is wrong, expected at most settings.topics.partitions, 12",
    ),
    (
        {"tagger": {"autoscaling": {"by": "cpu", "minReplicas": 5, "maxReplicas": 3}}},
        "tagger.autoscaling.minReplicas",
        "5 is wrong, expected at most maxReplicas, 3",
    ),
    (
        {"tagger": {"autoscaling": {"by": "cpu", "minReplicas": 0}}},
        "tagger.autoscaling.minReplicas",
        "0 is wrong, expected at least 1",
    ),
    (
        {"tagger": {"autoscaling": {"by": "lag", "lag": {"activation": 5}}}},
        "tagger.autoscaling.lag.activation",
        "5 is wrong, expected at least settings.topics.partitions, 12",
    ),
    ({"views": {"enabled": True, "replicas": 13}}, "views.replicas", "13 is wrong"),
    ({"feedback": {"replicas": 20}}, "feedback.replicas", "20 is wrong"),
    ({"tagger": {"persistence": {"enabled": True}}}, "tagger.persistence.enabled", "expected embedded"),
    (
        {"secrets": {name: {"name": "a", "key": "b"} for name in ("kafkaPassword", "kafkaSecrets")}},
        "secrets.kafkaPassword",
        "expected one of them",
    ),
]


@pytest.mark.parametrize(("values", "field", "says"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], field: str, says: str) -> None:
    done = chart.run(("template", chart.RELEASE), values=values)

    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if f"at '{field}':" in line or f": {field}: " in line]
    assert any(says in line for line in lines), done.stderr
    assert "Error: YAML parse" not in done.stderr
