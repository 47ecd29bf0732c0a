"""The Helm chart: what it renders is what Kubernetes and tierproxy take, and what can't work is refused.

Helm and kubeconform are built by Go; without it these tests are skipped.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
import yaml

from tests.kit import kubernetes
from tests.kit.certificates import Authority
from tests.kit.chart import CHART, README, Manifest, Refused, helm, of_kind, render
from tierproxy.config import Config, parse_config

pytestmark = [
    pytest.mark.usefixtures("helm_is_here"),
    pytest.mark.timeout(1200),  # the first time, Helm may still be being built
]

BASE: dict[str, Any] = {
    "image": {"repository": "registry.example.com/tierproxy"},
    "config": {
        "cluster": {"name": "prod", "bootstrap": ["kafka-0:9092"]},
        "archives": {"main": {"url": "s3://bucket/kafka"}},
        "topics": [{"match": "*", "archive": "main"}],
    },
}
SASL = {"mechanism": "SCRAM-SHA-512", "username": "tierproxy", "password": "${KAFKA_PASSWORD}"}
SNI = {"bootstrap": "kafka.example.com", "broker": "broker-{node}.kafka.example.com"}

SECRETS = "/run/secrets/tierproxy"

GOOD: dict[str, dict[str, Any]] = {
    "as it is": {},
    "load balancer": {"gateway.service": {"type": "LoadBalancer", "advertisedHost": "kafka.example.com", "brokers": 5}},
    "node ports": {"gateway.service": {"type": "NodePort", "advertisedHost": "nodes.example.com", "port": 31092}},
    "server names": {
        "gateway.sni": SNI,
        "gateway.tls.secretName": "kafka-tls",
        "gateway.service": {"type": "LoadBalancer", "port": 9093, "annotations": {"example.com/lb": "internal"}},
    },
    "archiver inside": {"archiver.separate": False, "gateway.workers": 2, "gateway.diskCacheGiB": 20},
    "archiver alone": {"gateway.enabled": False},
    "gateway alone": {"archiver.enabled": False, "configChange": "reload"},
    "sidecar alone": {"gateway.enabled": False, "archiver.enabled": False, "sidecar.enabled": True},
    "everything": {
        "config.cluster.security": {"protocol": "SASL_PLAINTEXT", "sasl": SASL},
        "config.limits": {"cold_read_rate": "50MiB/s"},
        "secrets": {
            "env": {"KAFKA_PASSWORD": {"name": "kafka", "key": "password"}},
            "files": {"s3": "archive-keys"},
        },
        "gateway.autoscaling.enabled": True,
        "gateway.podAnnotations": {"a": "b"},
        "gateway.tolerations": [{"key": "kafka", "operator": "Exists"}],
        "gateway.priorityClassName": "high",
        "gateway.nodeSelector": {"disk": "fast"},
        "sidecar.enabled": True,
        "image.digest": "sha256:" + 64 * "0",
        "image.pullSecrets": [{"name": "registry"}],
        "serviceAccount.annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/tierproxy"},
        "networkPolicy": {
            "enabled": True,
            "clients": [{"namespaceSelector": {"matchLabels": {"kafka": "client"}}}],
            "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 9092}]}],
        },
        "monitoring.serviceMonitor": {
            "enabled": True,
            "endpoint": {"authorization": {"credentials": {"name": "a", "key": "b"}}},
        },
        "monitoring.prometheusRule.enabled": True,
        "monitoring.dashboard.enabled": True,
        "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
        "extraVolumes": [{"name": "archive", "persistentVolumeClaim": {"claimName": "archive"}}],
        "extraVolumeMounts": [{"name": "archive", "mountPath": "/var/lib/tierproxy/archive"}],
    },
}

MUST_FAIL: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"image.repository": ""}, "image.repository is missing"),
    "no cluster": ({"config.cluster": {}}, "missing properties 'name', 'bootstrap'"),
    "a misspelt value": ({"gatway": {}}, "additional properties 'gatway' not allowed"),
    "a misspelt key of the configuration": ({"config.topcis": []}, "additional properties 'topcis' not allowed"),
    "a key that the chart writes": ({"config.listen": {}}, "additional properties 'listen' not allowed"),
    "a secret in the open": (
        {"config.archives.main": {"url": "s3://b/k", "access_key": "${A}", "secret_key": "wJalrXUtnFEMI"}},
        "secret_key",
    ),
    "a password in the open": (
        {"config.cluster.security": {"protocol": "SASL_SSL", "sasl": SASL | {"password": "hunter2"}}},
        "password",
    ),
    "a load balancer without a name": (
        {"gateway.service": {"type": "LoadBalancer"}},
        "gateway.service.advertisedHost is missing",
    ),
    "a name that nobody can come back to": ({"gateway.service.advertisedHost": "0.0.0.0"}, "advertisedHost"),
    "node ports that no node has": (
        {"gateway.service": {"type": "NodePort", "advertisedHost": "nodes.example.com"}},
        "must be from 30000 to 32767",
    ),
    "node ports that run out": (
        {"gateway.service": {"type": "NodePort", "advertisedHost": "n.example.com", "port": 32766}},
        "broker-1 would be at 32768",
    ),
    "ports that run out": ({"gateway.service": {"port": 65000, "brokers": [1000]}}, "choose a lower port"),
    "server names without TLS": ({"gateway.sni": SNI}, "gateway.sni needs gateway.tls.secretName"),
    "server names without a place for the broker": (
        {"gateway.sni": {"bootstrap": "a.example.com", "broker": "b.example.com"}, "gateway.tls.secretName": "t"},
        "sni",
    ),
    "one port twice": ({"admin.port": 9194}, "admin.port is the port of broker-1"),
    "an archiver inside of nothing": (
        {"gateway.enabled": False, "archiver.separate": False},
        "gateway.enabled is false",
    ),
    "an unknown kind of Service": ({"gateway.service": {"type": "ExternalName"}}, "value must be one of"),
    "an old Kubernetes": ({}, "incompatible with Kubernetes"),
}


def made(changes: dict[str, Any]) -> dict[str, Any]:
    """BASE, changed at these paths."""
    values = deepcopy(BASE)
    for path, value in changes.items():
        *parts, last = path.split(".")
        at = values
        for part in parts:
            at = at.setdefault(part, {})
        at[last] = value
    return values


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schemas")


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is at SECRETS in a pod."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("listen-tls", "s3", "kafka"):
        (folder / name).mkdir()
    (folder / "kafka" / "password").write_text("secret")
    for name in ("access-key", "secret-key"):
        (folder / "s3" / name).write_text("secret")
    certificate = Authority(tmp_path_factory.mktemp("authority")).issue("kafka.example.com")
    certificate.cert_file.rename(folder / "listen-tls" / "tls.crt")
    certificate.key_file.rename(folder / "listen-tls" / "tls.key")
    return folder


def configurations(manifests: list[Manifest], secrets: Path) -> dict[str, Config]:
    """What each role would read, by role."""
    found = {}
    for name, manifest in of_kind(manifests, "ConfigMap").items():
        if "tierproxy.yaml" in manifest["data"]:
            text = manifest["data"]["tierproxy.yaml"].replace(SECRETS, str(secrets))
            found[name.rpartition("-")[2]] = parse_config(text, environ={"KAFKA_PASSWORD": "secret"})
    return found


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for each in manifests:
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]


@pytest.mark.parametrize("case", GOOD)
def test_kubernetes_and_tierproxy_take_what_is_rendered(case: str, schemas: Path, secrets: Path) -> None:
    values = made(GOOD[case])
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, values=values)
    for version in (kubernetes.OLDEST, kubernetes.NEWEST):
        manifests = render(values, kubernetes=version)
        assert kubernetes.faults(manifests, version, schemas) == []
    assert configurations(manifests, secrets)
    for name, spec in pod_specs(manifests):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            hardened = container["securityContext"]
            assert hardened["readOnlyRootFilesystem"] is True
            assert hardened["allowPrivilegeEscalation"] is False
            assert hardened["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"].keys() == {"requests", "limits"}
            assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]}


def test_what_is_checked_can_be_refused(schemas: Path) -> None:
    """Else the test above would say yes to everything."""
    manifests = render(made({}))
    deployment = of_kind(manifests, "Deployment")["kit-tierproxy-gateway"]
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    deployment["spec"]["replicas"] = "two"
    (told,) = kubernetes.faults([deployment], kubernetes.NEWEST, schemas)
    assert "imagePullPolice" in told
    assert "replicas" in told


@pytest.mark.parametrize("case", MUST_FAIL)
def test_what_cannot_work_is_refused(case: str) -> None:
    changes, told = MUST_FAIL[case]
    with pytest.raises(Refused) as refused:
        render(made(changes), kubernetes="1.28.0" if case == "an old Kubernetes" else kubernetes.NEWEST)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value) or case == "a password in the open"


def test_each_broker_has_a_port_of_the_service_that_clients_are_told(secrets: Path) -> None:
    values = made({"gateway.service": {"brokers": [1, 2, 5], "port": 9192}})
    manifests = render(values)
    listen = configurations(manifests, secrets)["gateway"].listen
    service = of_kind(manifests, "Service")["kit-tierproxy"]
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    assert ports == {"bootstrap": 9192, "broker-1": 9194, "broker-2": 9195, "broker-5": 9198}
    assert listen.port == 9192
    assert listen.advertised_host == "kit-tierproxy.kit.svc.cluster.local"
    container = of_kind(manifests, "Deployment")["kit-tierproxy-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert {each["containerPort"] for each in container["ports"]} == {9180, *ports.values()}


def test_node_ports_are_those_that_clients_are_told(secrets: Path) -> None:
    manifests = render(made(GOOD["node ports"]))
    ports = of_kind(manifests, "Service")["kit-tierproxy"]["spec"]["ports"]
    assert [each["nodePort"] for each in ports] == [each["port"] for each in ports] == [31092, 31093, 31094, 31095]
    assert configurations(manifests, secrets)["gateway"].listen.advertised_host == "nodes.example.com"


def test_with_server_names_there_is_one_port(secrets: Path) -> None:
    manifests = render(made(GOOD["server names"]))
    service = of_kind(manifests, "Service")["kit-tierproxy"]
    assert [each["port"] for each in service["spec"]["ports"]] == [9093]
    listen = configurations(manifests, secrets)["gateway"].listen
    assert listen.sni is not None
    assert listen.tls is not None
    (mount,) = (
        each
        for _, spec in pod_specs(manifests)
        for each in spec["containers"][0]["volumeMounts"]
        if each["name"] == "listen-tls"
    )
    assert mount["mountPath"] == f"{SECRETS}/listen-tls"
    assert listen.tls.cert_file == secrets / "listen-tls" / "tls.crt"


def test_each_role_does_its_own_work(secrets: Path) -> None:
    separate = configurations(render(made({"sidecar.enabled": True})), secrets)
    assert {role: (each.listen.enabled, each.archiver.enabled) for role, each in separate.items()} == {
        "gateway": (True, False),
        "archiver": (False, True),
        "sidecar": (True, False),
    }
    assert (separate["sidecar"].listen.host, separate["sidecar"].listen.advertised_host) == ("127.0.0.1", "127.0.0.1")
    together = configurations(render(made({"archiver.separate": False})), secrets)
    assert together.keys() == {"gateway"}
    assert together["gateway"].archiver.enabled


def test_a_pod_is_given_the_time_that_its_end_takes(secrets: Path) -> None:
    for workers, beside in ((1, 15), (2, 45)):
        values = made({"gateway.shutdown": {"preStop": 3, "delay": 7, "drain": 11}, "gateway.workers": workers})
        manifests = render(values)
        spec = of_kind(manifests, "Deployment")["kit-tierproxy-gateway"]["spec"]["template"]["spec"]
        listen = configurations(manifests, secrets)["gateway"].listen
        assert (listen.drain_delay_ms, listen.drain_ms) == (7_000, 11_000)
        assert spec["containers"][0]["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "3"]}}}
        assert spec["terminationGracePeriodSeconds"] == 3 + 7 + 11 + beside


def test_a_changed_configuration_replaces_pods_or_does_not_as_was_asked() -> None:
    def annotations(change: dict[str, Any]) -> dict[str, str]:
        deployments = of_kind(render(made(change)), "Deployment")
        found: dict[str, str] = deployments["kit-tierproxy-gateway"]["spec"]["template"]["metadata"]["annotations"]
        return found

    other = {"config.log": {"level": "debug"}}
    assert annotations({}) == annotations({})
    assert annotations({}) != annotations(other)
    assert annotations({"configChange": "reload"}) == annotations({"configChange": "reload"} | other)


def test_secrets_are_references() -> None:
    manifests = render(made(GOOD["everything"]))
    for role in ("gateway", "archiver"):
        spec = of_kind(manifests, "Deployment")[f"kit-tierproxy-{role}"]["spec"]["template"]["spec"]
        assert {
            "name": "KAFKA_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "kafka", "key": "password"}},
        } in spec["containers"][0]["env"]
        assert {"name": "secret-s3", "secret": {"secretName": "archive-keys", "defaultMode": 0o440}} in spec["volumes"]
    assert not of_kind(manifests, "Secret")


def test_the_values_in_the_readme_work(schemas: Path, secrets: Path) -> None:
    blocks = README.read_text().split("```yaml\n")[1:]
    smallest, of_secrets = (yaml.safe_load(block.partition("```")[0]) for block in blocks[:2])
    manifests = render(smallest)
    assert kubernetes.faults(manifests, kubernetes.NEWEST, schemas) == []
    assert configurations(manifests, secrets).keys() == {"gateway", "archiver"}
    both = {**smallest, **of_secrets, "config": {**smallest["config"]}}
    both["config"]["cluster"] = smallest["config"]["cluster"] | of_secrets["config"]["cluster"]
    account = configurations(render(both), secrets)["archiver"].cluster.security.sasl
    assert account is not None
    assert account.password_file == secrets / "kafka" / "password"


def test_alerts_and_dashboard_are_those_of_the_chart(tmp_path: Path) -> None:
    """With files of the test's own: what Prometheus writes with braces is not for Helm to fill in."""
    chart = tmp_path / "tierproxy"
    copytree(CHART, chart, ignore=ignore_patterns("alerts", "dashboards"))
    nothing = render(made(GOOD["everything"]), chart)
    assert not of_kind(nothing, "PrometheusRule")
    group = {"name": "a", "rules": [{"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.job }}"}}]}
    (chart / "alerts").mkdir()
    (chart / "alerts" / "a.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    (chart / "alerts" / "b.yaml").write_text(yaml.safe_dump({"groups": [group | {"name": "b"}]}))
    (chart / "dashboards").mkdir()
    (chart / "dashboards" / "tierproxy.json").write_text('{"title": "{{job}}"}\n')
    manifests = render(made(GOOD["everything"]), chart)
    (rule,) = of_kind(manifests, "PrometheusRule").values()
    assert rule["spec"]["groups"] == [group, group | {"name": "b"}]
    dashboard = of_kind(manifests, "ConfigMap")["kit-tierproxy-dashboard"]
    assert json.loads(dashboard["data"]["tierproxy.json"]) == {"title": "{{job}}"}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (monitor,) = of_kind(manifests, "ServiceMonitor").values()
    service = of_kind(manifests, "Service")["kit-tierproxy-admin"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert {key: service["metadata"]["labels"][key] for key in wanted} == wanted
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_example_puts_tierproxy_beside_a_consumer(example: Path, schemas: Path, secrets: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", example, "--kube-version", kubernetes.NEWEST)
    manifests = render({}, example)
    assert kubernetes.faults(manifests, kubernetes.NEWEST, schemas) == []
    assert [each["kind"] for each in manifests] == ["ConfigMap", "Deployment"]
    listen = configurations(manifests, secrets)["sidecar"].listen
    spec = of_kind(manifests, "Deployment")["kit-consumer"]["spec"]["template"]["spec"]
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"]["runAsNonRoot"] is True
    assert f"--bootstrap-server=127.0.0.1:{listen.port}" in spec["containers"][0]["command"]
    assert {each["name"] for each in sidecar["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
