"""Wrong values are refused before anything is installed, by a line that names the field and says what is wrong."""

from typing import Any

import pytest
import yaml

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
    ({"image": {"repository": "tagbus:latest"}}, "/image/repository", "'tagbus:latest' does not match"),
    ({"views": {"image": {"repository": "a.example:5000/views:1"}}}, "/views/image/repository", "does not match"),
    ({"image": {"tag": "0.1:0"}}, "/image/tag", "'0.1:0' does not match"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest", "does not match"),
    ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"),
    ({"settings": {"kafka": {"brokers": ""}}}, "/settings/kafka/brokers", "want 1"),
    ({"settings": {"kafka": {"broker": "a:9092"}}}, "/settings/kafka", "'broker' not allowed"),
    ({"settings": {"kafka": {"secrets": {"sasl.password": "x"}}}}, "/settings/kafka", "'secrets' not allowed"),
    (
        {"settings": {"kafka": {"options": {"sasl.password": "x"}}}},
        "/settings/kafka/options/sasl.password",
        "value must be 'set in secrets.kafkaPassword or secrets.kafkaSecrets'",
    ),
    (
        {"tagger": {"settings": {"kafka": {"options": {"ssl.key.password": "x"}}}}},
        "/tagger/settings/kafka/options/ssl.key.password",
        "value must be 'set in secrets",
    ),
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
    ({"podLabels": {"app.kubernetes.io/name": "x"}}, "/podLabels/app.kubernetes.io~1name", "'not' failed"),
    ({"podAnnotations": {"checksum/settings": "x"}}, "/podAnnotations/checksum~1settings", "'not' failed"),
    (
        {"monitoring": {"rules": {"labels": {"helm.sh/chart": "x"}}}},
        "/monitoring/rules/labels/helm.sh~1chart",
        "'not' failed",
    ),
    (
        {"monitoring": {"serviceMonitor": {"intervalSeconds": 5}}},
        "/monitoring/serviceMonitor/intervalSeconds",
        "want 10",
    ),
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
    ({"tls": [{"name": "a", "secret": "one"}, {"name": "a", "secret": "two"}]}, "tls", "name a is there twice"),
    (
        {"views": {"enabled": True}, "settings": {"health": {"port": 8790}}},
        "settings.health.port",
        "8790 is wrong, expected another than views.port",
    ),
    (
        {"tagger": {"settings": {"memory": {"kind": "server"}}}},
        "tagger.settings.memory.kind",
        "server is wrong, expected it in settings.memory.kind",
    ),
    ({"tagger": {"resources": {"requests": {"cpu": -1}}}}, "/tagger/resources/requests/cpu", "want 0"),
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


@pytest.mark.parametrize("name", ["1rel", "a.b", "123"])
def test_a_release_whose_name_no_service_may_have_is_refused_unless_objects_have_another(name: str) -> None:
    done = chart.run(("template", name))

    assert done.returncode != 0
    assert f"release name: {name} is wrong" in done.stderr
    assert "or fullnameOverride" in done.stderr
    named = chart.run(("template", name), values={"fullnameOverride": "tags"})
    for each in yaml.safe_load_all(named.stdout):
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == name
        chart.validate(each)


# What looks like one of the wrong ones above, and is right.
RIGHT: dict[str, dict[str, Any]] = {
    "a registry with a port": {"image": {"repository": "registry.example.com:5000/team/tagbus"}},
    "half a core": {"tagger": {"resources": {"requests": {"cpu": 0.5}}}},
    "one partition without views": {"settings": {"topics": {"partitions": 1}}, "tagger": {"replicas": 1}},
    "one partition without feedback": {
        "settings": {"topics": {"partitions": 1}},
        "tagger": {"replicas": 1},
        "feedback": {"enabled": False, "replicas": 5},
    },
    "a label of its own": {"podLabels": {"app.example.org/name": "x"}},
    "a disk for a memory of the taggers": {
        "tagger": {"settings": {"memory": {"kind": "embedded"}}, "persistence": {"enabled": True}}
    },
    "metrics and views at ports of their own": {
        "views": {"enabled": True, "settings": {"health": {"port": 8791}}},
        "settings": {"health": {"port": 8790}},
    },
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_taken(name: str) -> None:
    for each in chart.render(RIGHT[name]):
        chart.validate(each)
