"""What the chart makes: objects that Kubernetes takes, whose parts find each other, and pods that may do little."""

import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tagbus.stream.cli.commands import service_commands
from tests.helm import chart
from tests.helm.chart import Object

SERVER = {"settings": {"memory": {"kind": "server", "url": "http://qdrant:6333"}}}
EVERYTHING: Mapping[str, Any] = {
    "image": {"pullSecrets": ["registry"], "digest": f"sha256:{'0' * 64}"},
    "settings": {
        **SERVER["settings"],
        "kafka": {"options": {"security.protocol": "SSL"}},
        "batch": {"in_flight_bytes": 128_000_000},
        "encoder": {"providers": ["cuda", "cpu"]},
        "components": {"literal": {"enabled": True, "languages": "en,de"}},
    },
    "secrets": {
        "kafkaSecrets": {"name": "kafka", "key": "secrets.json"},
        **{name: {"name": "other", "key": name} for name in chart.VALUES["secrets"] if not name.startswith("kafka")},
    },
    "tls": [{"name": "kafka", "secret": "ca"}, {"name": "qdrant", "secret": "qdrant-ca"}],
    "releases": {"existingClaim": "releases"},
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/tagbus/tls/qdrant/ca.crt"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "podLabels": {"team": "search"},
    "podAnnotations": {"example.org/why": "labels"},
    "tagger": {
        "autoscaling": {"by": "lag", "minReplicas": 0, "lag": {"authentication": "kafka"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
    "triton": {
        "enabled": True,
        "args": ["--model-config-name=tensorrt_fp16"],
        "models": {"load": ["encoder", "heads"]},
    },
    "views": {"enabled": True},
    "topologySpread": {"zone": "DoNotSchedule", "node": "none"},
    "networkPolicy": {
        "views": [{"podSelector": {"matchLabels": {"team": "recommenders"}}}],
        "enabled": True,
        "monitoring": [{"namespaceSelector": {}}],
        "egress": [{"ports": [{"port": 9092, "protocol": "TCP"}]}],
    },
    "monitoring": {
        "runbookUrl": "https://example.org/tagbus/",
        **{name: {"enabled": True, "labels": {"a": "b"}} for name in ("serviceMonitor", "rules", "dashboards")},
    },
    "retraining": {"enabled": True, "image": {"repository": "tagbus-train"}, "command": ["sh", "-c", "tagbus train"]},
}
# Each switch alone, by name.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "a shared memory": SERVER,
    "a disk": {"settings": {"memory": {"kind": "embedded"}}, "tagger": {"persistence": {"enabled": True}}},
    "scaling by lag": {"tagger": {"autoscaling": {"by": "lag"}}},
    "scaling by cpu": {"tagger": {"autoscaling": {"by": "cpu"}}},
    "no feedback": {"feedback": {"enabled": False}},
    "views": {"views": {"enabled": True}},
    "views without a disk": {"views": {"enabled": True, "persistence": {"enabled": False}}},
    "triton": {"triton": {"enabled": True}},
    "triton with a claim": {"triton": {"enabled": True, "models": {"existingClaim": "models"}}},
    "no disruption budget": {"podDisruptionBudget": {"enabled": False}},
    "no spread": {"topologySpread": {"zone": "none", "node": "none"}},
    "network policy": {"networkPolicy": {"enabled": True}},
    "service monitor": {"monitoring": {"serviceMonitor": {"enabled": True}}},
    "no hooks": {"hooks": {"topics": False, "check": False}},
    "a password": {"secrets": {"kafkaPassword": {"name": "kafka", "key": "password"}}},
    "the cluster's user": {"runAsUser": None},
    "a name": {"fullnameOverride": "tags", "nameOverride": "t"},
    "everything": EVERYTHING,
}
FILES: Mapping[str, Sequence[str]] = {"default": (), "small": ("values-small.yaml",), "large": ("values-large.yaml",)}
CASES = [*FILES, *SWITCHES]
LONG_RUNNING = ("StatefulSet", "Deployment")


@cache
def rendered(case: str) -> list[Object]:
    return chart.render(SWITCHES.get(case), FILES.get(case, ()))


@pytest.mark.parametrize("name", FILES)
def test_helm_has_nothing_to_say_of_it(name: str) -> None:
    done = chart.run(("lint",), "--strict", *(f"--values={chart.CHART / file}" for file in FILES[name]))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_object(case: str) -> None:
    for each in rendered(case):
        chart.validate(each)


@pytest.mark.parametrize("case", CASES)
def test_every_object_has_a_name_of_its_own_and_the_labels_of_helm(case: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered(case)]
    assert len(names) == len(set(names))
    for each in rendered(case):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == chart.RELEASE
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"].startswith("tagbus-")


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_the_pods_of_one_object(case: str) -> None:
    objects = rendered(case)
    made = {name: pod["metadata"]["labels"] for name, pod in chart.pods(objects)}
    for each in objects:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        assert wanted.keys() == {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}
        assert len([name for name, labels in made.items() if wanted.items() <= labels.items()]) == 1, each


@pytest.mark.parametrize("case", CASES)
def test_ports_lead_to_ports_and_claims_to_services(case: str) -> None:
    objects = rendered(case)
    services = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Service"}
    for each in objects:
        if each["kind"] == "StatefulSet":
            assert each["spec"]["serviceName"] in services
        if each["kind"] == "ServiceMonitor":
            (endpoint,) = each["spec"]["endpoints"]
            ports = services[each["metadata"]["name"]]["spec"]["ports"]
            assert endpoint["port"] in {port["name"] for port in ports}
    for service_name, service in services.items():
        name = service_name.removesuffix("-api")
        (pod,) = [pod for made, pod in chart.pods(objects) if made in {f"{kind} {name}" for kind in LONG_RUNNING}]
        open_ports = {port["name"] for each in chart.containers(pod) for port in each.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


@pytest.mark.parametrize("case", CASES)
def test_pods_are_no_root_write_nowhere_but_on_volumes_and_ask_kubernetes_nothing(case: str) -> None:
    for name, pod in chart.pods(rendered(case)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        # The variables beside a Service named tagbus would look like settings.
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"].get("runAsUser") == (None if case == "the cluster's user" else 10_001)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in chart.containers(pod):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize("case", CASES)
def test_every_mount_has_a_volume_and_every_disk_is_there(case: str) -> None:
    for each in rendered(case):
        claimed = {one["metadata"]["name"] for one in each.get("spec", {}).get("volumeClaimTemplates", [])}
        for name, pod in chart.pods([each]):
            volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
            assert not volumes & claimed
            for container in chart.containers(pod):
                mounted = [mount["name"] for mount in container["volumeMounts"]]
                assert set(mounted) <= volumes | claimed, name
                assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(mounted)


@pytest.mark.parametrize("case", CASES)
def test_every_command_is_one_of_tagbus(case: str) -> None:
    commands = service_commands()
    for name, pod in chart.pods(rendered(case)):
        for each in pod["spec"]["containers"]:
            if each["name"] == "tagbus" and "args" in each:
                assert each["args"][0] in commands, name


@pytest.mark.parametrize("case", CASES)
def test_secrets_are_referred_to_and_never_made(case: str) -> None:
    assert not [each for each in rendered(case) if each["kind"] == "Secret"]
    for _, pod in chart.pods(rendered(case)):
        for container in pod["spec"]["containers"]:
            for entry in container.get("env", []):
                if entry["name"].endswith(("API_KEY", "PASSWORD", "OTEL__HEADERS")):
                    assert "secretKeyRef" in entry["valueFrom"]


def test_a_password_goes_into_the_properties_of_kafka() -> None:
    (entry,) = [
        entry
        for entry in chart.one(rendered("a password"), "StatefulSet", "tagger")["spec"]["template"]["spec"][
            "containers"
        ][0]["env"]
        if entry["name"] == "TAGBUS_KAFKA__SECRETS"
    ]
    assert entry["value"] == '{"sasl.password": "$(KAFKA_PASSWORD)"}'


def test_the_indexer_is_there_where_memory_is_shared() -> None:
    def names(case: str) -> set[str]:
        return {each["metadata"]["name"] for each in rendered(case) if each["kind"] in LONG_RUNNING}

    assert "release-tagbus-indexer" in names("a shared memory")
    assert "release-tagbus-indexer" not in names("default")


def test_nothing_holds_up_the_drain_of_a_node() -> None:
    budgets = [each for each in rendered("everything") if each["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 5
    for each in budgets:
        assert each["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert each["spec"]["maxUnavailable"] == 1


def test_replicas_are_spread_over_zones_and_nodes() -> None:
    for name, pod in chart.pods(rendered("default")):
        if not name.startswith("Job"):
            keys = {each["topologyKey"] for each in pod["spec"]["topologySpreadConstraints"]}
            assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
            for each in pod["spec"]["topologySpreadConstraints"]:
                assert each["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_only_monitoring_and_tagbus_itself_may_come_in() -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in rendered("everything") if each["kind"] == "NetworkPolicy"
    }
    assert len(policies) == 5
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"][0]["from"] == [{"namespaceSelector": {}}]
        assert {port["port"] for port in spec["egress"][0]["ports"]} == {53}
    others, recommenders = policies["release-tagbus-views"]["ingress"][1]["from"]
    assert others["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "views"
    assert recommenders == {"podSelector": {"matchLabels": {"team": "recommenders"}}}
    grpc = policies["release-tagbus-triton"]["ingress"][1]
    assert grpc["ports"] == [{"port": "grpc"}]
    assert not any("team" in str(peer) for peer in grpc["from"])
    closed = [each["spec"] for each in rendered("network policy") if each["kind"] == "NetworkPolicy"]
    assert all(spec["policyTypes"] == ["Ingress"] and not spec["ingress"] for spec in closed)


def test_topics_are_made_before_anything_runs_and_an_upgrade_is_checked() -> None:
    def hooks(name: str) -> tuple[str, int]:
        notes = chart.one(rendered("views"), "Job", name)["metadata"]["annotations"]
        return notes["helm.sh/hook"], int(notes["helm.sh/hook-weight"])

    assert hooks("-tagbus-topics") == ("pre-install,pre-upgrade", 0)
    # With as many partitions as `tagged`, which is there by then.
    assert hooks("-views-topics") == ("pre-install,pre-upgrade", 1)
    assert hooks("-check") == ("pre-upgrade", 2)
    for name in ("-topics", "-check"):
        # Neither a ConfigMap nor an account of the release is there before it is installed.
        (container,) = chart.one(rendered("default"), "Job", name)["spec"]["template"]["spec"]["containers"]
        assert "envFrom" not in container


def test_a_replica_of_the_views_is_found_by_the_others_under_a_name_of_its_own() -> None:
    objects = rendered("views")
    views = chart.one(objects, "StatefulSet", "views")["spec"]
    (container,) = views["template"]["spec"]["containers"]
    given = {entry["name"]: entry.get("value") or entry["valueFrom"] for entry in container["env"]}
    assert given["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert given["TAGBUS_VIEWS__ADVERTISED"] == f"http://$(POD_NAME).{views['serviceName']}:8790"
    # It restores its tables before it is ready, and asks others meanwhile.
    service = chart.one(objects, "Service", "-views")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert chart.one(objects, "Service", "views-api")["spec"]["ports"] == [
        {"name": "api", "port": 80, "targetPort": "api"}
    ]
    assert container["image"].startswith("tagbus-views:")


def test_retraining_is_a_command_of_its_own_image_and_never_twice_at_once() -> None:
    job = chart.one(rendered("everything"), "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert container["command"] == ["sh", "-c", "tagbus train"]
    assert container["image"].startswith("tagbus-train:")
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "releases"]
    assert mount["readOnly"] is False
    (tagger,) = chart.one(rendered("everything"), "StatefulSet", "tagger")["spec"]["template"]["spec"]["containers"]
    assert [one["readOnly"] for one in tagger["volumeMounts"] if one["name"] == "releases"] == [True]
    assert not [each for each in rendered("default") if each["kind"] == "CronJob"]


@pytest.mark.parametrize("case", FILES)
def test_the_notes_say_how_to_see_it_tag(case: str, tmp_path: Path) -> None:
    # helm renders the notes where it installs; as a template they are there without a cluster.
    copy = shutil.copytree(chart.CHART, tmp_path / "tagbus")
    notes = (copy / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" }}}}{notes}{{{{ end }}}}notes: {{{{ include "notes" . | toJson }}}}'
    )
    done = chart.run(
        ("template", chart.RELEASE),
        "--show-only=templates/notes.yaml",
        *(f"--values={chart.CHART / file}" for file in FILES[case]),
        chart=copy,
    )
    assert done.returncode == 0, done.stderr
    said = yaml.safe_load(done.stdout)["notes"]
    assert f"helm test {chart.RELEASE} --namespace default" in said
    assert f"{chart.RELEASE}-tagbus-tagger-0" in said
    assert ("No alerts are installed" in said) == (case != "large")
