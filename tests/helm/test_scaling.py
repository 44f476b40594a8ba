"""How many taggers there are: by hand, by lag or by CPU, never by two at once, never more than partitions."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.helm import chart
from tests.helm.chart import Object


def rendered(autoscaling: Mapping[str, Any], **more: Any) -> list[Object]:
    return chart.render({"tagger": {"autoscaling": autoscaling}, **more})


def kinds(objects: list[Object]) -> set[str]:
    return {each["kind"] for each in objects} & {"ScaledObject", "HorizontalPodAutoscaler"}


@pytest.mark.parametrize(
    ("by", "scaler"), [("none", set()), ("lag", {"ScaledObject"}), ("cpu", {"HorizontalPodAutoscaler"})]
)
def test_one_scaler_at_most_and_replicas_only_without_one(by: str, scaler: set[str]) -> None:
    objects = rendered({"by": by})
    assert kinds(objects) == scaler
    # A number here would undo what the scaler has set, at every upgrade.
    assert ("replicas" in chart.one(objects, "StatefulSet", "tagger")["spec"]) == (by == "none")
    assert chart.one(objects, "StatefulSet", "feedback")["spec"]["replicas"] == 1


@pytest.mark.parametrize(("by", "kind"), [("lag", "ScaledObject"), ("cpu", "HorizontalPodAutoscaler")])
def test_a_scaler_scales_the_taggers(by: str, kind: str) -> None:
    objects = rendered({"by": by, "minReplicas": 2, "maxReplicas": 6})
    spec = chart.one(objects, kind)["spec"]
    target = chart.one(objects, "StatefulSet", "tagger")
    assert spec["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }
    assert {
        spec.get("minReplicas", spec.get("minReplicaCount")),
        spec.get("maxReplicas", spec.get("maxReplicaCount")),
    } == {2, 6}


def test_lag_is_that_of_the_group_on_its_topic() -> None:
    settings = {
        "kafka": {"brokers": "a:9092,b:9092", "group": "news", "start": "latest"},
        "topics": {"content": "articles", "partitions": 6},
    }
    objects = rendered({"by": "lag", "maxReplicas": 6, "lag": {"contents": 500, "activation": 50}}, settings=settings)
    (trigger,) = chart.one(objects, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"] == {
        "bootstrapServers": "a:9092,b:9092",
        "consumerGroup": "news",
        "topic": "articles",
        "lagThreshold": "500",
        "activationLagThreshold": "50",
        "offsetResetPolicy": "latest",
        "allowIdleConsumers": "false",
        "excludePersistentLag": "false",
    }


def test_what_transaction_markers_leave_wakes_nobody() -> None:
    """A partition to which producers write in transactions ends in a marker, which nobody reads while nobody runs."""
    trigger = chart.VALUES["tagger"]["autoscaling"]["lag"]["activation"]
    assert trigger >= chart.VALUES["settings"]["topics"]["partitions"]
    large = chart.one(chart.render(files=("values-large.yaml",)), "ScaledObject")["spec"]
    assert int(large["triggers"][0]["metadata"]["activationLagThreshold"]) >= large["maxReplicaCount"] == 48


def test_large_scales_brokers_memory_and_models() -> None:
    objects = chart.render(files=("values-large.yaml",))
    data = chart.one(objects, "ConfigMap", "tagger")["data"]
    assert len(data["TAGBUS_KAFKA__BROKERS"].split(",")) == 3
    assert data["TAGBUS_TOPICS__REPLICATION"] == "3"
    assert int(data["TAGBUS_MEMORY__REPLICAS"]) >= 2
    assert data["TAGBUS_MEMORY__REPLICAS"] == data["TAGBUS_MEMORY__WRITE_CONSISTENCY"]
    triton = chart.one(objects, "Deployment", "triton")["spec"]["template"]["spec"]
    assert triton["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert triton["tolerations"]
