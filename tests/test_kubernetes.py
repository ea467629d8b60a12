"""The manifests in deploy/kubernetes fit the code: commands, settings, queues, groups, ports and limits."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from protocol.queues import Lane
from runtime.config import load
from runtime.secrets import CREDENTIAL, Secrets, new_secret
from runtime.settings import Config
from storage import keys
from workers.__main__ import KINDS
from workers.operations.scaling import ALONE, IDLE, PREVENTIVE_ABOVE, QUEUE_NAMES, URGENT
from workers.portal import data_processing, file_upload, notification
from workers.portal.room import kinds

DEPLOY = Path(__file__).parents[1] / "deploy"
FOLDER = DEPLOY / "kubernetes"
MARGIN_S = 5
USER = 10001

TASK_MODULES = {module.__name__ for module in (data_processing, file_upload, notification)}
TASKS = {kind.name: kind.limits.concurrency for kind in kinds if kind.run.__module__ in TASK_MODULES}
"""How many tasks of each kind a worker does at once. Other tests make kinds of their own."""

Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def merged(base: Any, patch: Any) -> Any:
    """What a strategic merge patch makes of it: of lists those with names are merged by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {
            **base,
            **{key: merged(base[key], each) if key in base else each for key, each in patch.items()},
        }
    if isinstance(base, list) and all(isinstance(each, dict) and "name" in each for each in base + patch):
        by_name = {each["name"]: each for each in base}
        return list(merged(by_name, {each["name"]: each for each in patch}).values())
    return patch


def pods() -> Iterator[tuple[str, Document]]:
    """Each kind of pod with the template that it is made by, the patch for all of them applied."""
    (patch,) = documents("pod.yaml")
    for document in documents("nodes.yaml") + documents("workers.yaml"):
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield (
                document["metadata"]["name"],
                merged(document["spec"]["template"], patch["spec"]["template"]),
            )


PODS = dict(pods())
SCALED = {
    each["metadata"]["name"]: each["spec"]
    for each in documents("scaling.yaml")
    if each["kind"] == "ScaledObject"
}
SETTINGS: dict[str, str] = documents("settings.yaml")[0]["data"]

every_pod = pytest.mark.parametrize("name", PODS)
every_scaled = pytest.mark.parametrize("name", SCALED)


def container(name: str) -> Document:
    (only,) = PODS[name]["spec"]["containers"]
    found: Document = only
    return found


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The settings that a process in a pod finds, with the Secret of the example where pods mount it."""
    (secret,) = documents("secret.example.yaml")
    for name, text in secret["stringData"].items():
        (tmp_path / name).write_text(text if name != CREDENTIAL else new_secret())
    environ = {**SETTINGS, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    found = load(None, environ=environ, overrides=[])
    assert Secrets.load(found.auth, environ=environ, data_dir=None)
    return found


def test_the_kustomization_names_all_files_and_no_others() -> None:
    (kustomization,) = documents("kustomization.yaml")
    named = [*kustomization["resources"], *(each["path"] for each in kustomization["patches"])]
    present = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml", "secret.example.yaml"}
    assert sorted(named) == sorted(present)


def test_there_is_a_pod_for_each_process() -> None:
    assert {name: container(name)["args"] for name in PODS} == {
        "node": ["socketd"],
        **{kind: ["workers", kind] for kind in KINDS},
    }


def test_the_settings_are_settings_and_the_stores_come_from_the_secret(config: Config) -> None:
    assert config.redis.url.startswith("redis://")
    assert config.database.url.startswith("mysql+aiomysql://")
    assert config.socketd.host == config.metrics.host == "0.0.0.0"
    assert config.portal.storage_url.startswith("s3://")
    assert SETTINGS["REDIS_ADDRESS"] in config.redis.url


@every_pod
def test_a_pod_reads_the_secret_as_files_and_nothing_of_it_as_environment(name: str) -> None:
    (secret,) = documents("secret.example.yaml")
    pod, only = PODS[name]["spec"], container(name)
    environment = {each["name"]: each for each in only["env"]}
    assert only["envFrom"] == [{"configMapRef": {"name": documents("settings.yaml")[0]["metadata"]["name"]}}]
    assert not any("secretKeyRef" in str(each) for each in only["env"])
    mounted = {each["name"]: each for each in only["volumeMounts"]}["credentials"]
    assert mounted["mountPath"] == environment["CREDENTIALS_DIRECTORY"]["value"]
    volume = {each["name"]: each for each in pod["volumes"]}["credentials"]["secret"]
    assert volume["secretName"] == secret["metadata"]["name"]
    for item in volume["items"]:
        assert item["key"] == item["path"] in secret["stringData"]


@every_pod
def test_a_pod_may_do_little(name: str) -> None:
    pod, only = PODS[name]["spec"], container(name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@every_pod
def test_a_pod_has_the_time_to_drain(name: str, config: Config) -> None:
    stop = (
        container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    )
    assert stop[0] == "sleep"
    needed_s = config.socketd.drain_timeout_s + int(stop[1]) + MARGIN_S
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= needed_s


@every_pod
def test_probes_ask_at_ports_that_are_served(name: str, config: Config) -> None:
    only = container(name)
    ports = {each["name"]: each["containerPort"] for each in only["ports"]}
    served = {"metrics": config.metrics.port, "players": config.socketd.port}
    assert ports == {port: served[port] for port in ports}
    assert (name == "node") == ("players" in ports)
    for probe in ("startupProbe", "livenessProbe"):
        assert only[probe]["httpGet"] == {"path": "/metrics", "port": "metrics"}
    assert ("readinessProbe" in only) == (name == "node")


def test_services_lead_to_players_ports_and_never_to_figures() -> None:
    services = [each for each in documents("nodes.yaml") if each["kind"] == "Service"]
    labels = PODS["node"]["metadata"]["labels"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ["players"]
    (stateful,) = (each for each in documents("nodes.yaml") if each["kind"] == "StatefulSet")
    assert stateful["spec"]["serviceName"] in {service["metadata"]["name"] for service in services}
    (named,) = (each for each in container("node")["env"] if each["name"] == "LOBBYD_SOCKETD__SERVER_ID")
    assert named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert load(None, environ={"LOBBYD_SOCKETD__SERVER_ID": "node-0"}, overrides=[])


def test_one_pod_of_a_kind_is_disturbed_at_a_time() -> None:
    budgets = [
        each["spec"]
        for each in documents("nodes.yaml") + documents("workers.yaml")
        if each["kind"] == "PodDisruptionBudget"
    ]
    assert [each["maxUnavailable"] for each in budgets] == [1] * len(PODS)
    for name, pod in PODS.items():
        chosen = [
            each["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items() for each in budgets
        ]
        assert chosen.count(True) == 1, name


def test_what_comes_and_goes_is_what_operations_has_come_and_go() -> None:
    assert SCALED.keys() == KINDS.keys() - ALONE
    for name, spec in SCALED.items():
        assert spec["scaleTargetRef"]["name"] == name


@every_scaled
def test_it_is_scaled_by_all_its_queues(name: str) -> None:
    owner = QUEUE_NAMES.get(name, name)
    tasks = {keys.task_queue(kind) for kind in TASKS} if name == "portal" else set()
    jobs = {keys.SUBMITTED_SCORES} if name == "ranking" else set()
    requests = {keys.lane_queue(owner, lane) for lane in Lane}
    triggers = [each["metadata"] for each in SCALED[name]["triggers"] if each["type"] == "redis-streams"]
    lengths = {each["stream"]: int(each["streamLength"]) for each in triggers}
    assert len(triggers) == len(lengths)
    assert lengths.keys() == requests | jobs | tasks
    # KEDA takes the length of a stream where no group is named.
    assert not any("consumerGroup" in each for each in triggers)
    for kind, at_once in TASKS.items() if tasks else ():
        assert lengths[keys.task_queue(kind)] == 2 * at_once


@every_scaled
def test_keda_finds_redis_and_its_password(name: str) -> None:
    (secret,) = documents("secret.example.yaml")
    (authentication,) = (
        each for each in documents("scaling.yaml") if each["kind"] == "TriggerAuthentication"
    )
    for trigger in SCALED[name]["triggers"]:
        if trigger["type"] == "redis-streams":
            assert trigger["metadata"]["addressFromEnv"] in SETTINGS
            assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    for each in authentication["spec"]["secretTargetRef"]:
        assert each["name"] == secret["metadata"]["name"]
        assert each["key"] in secret["stringData"]


@every_scaled
def test_the_pace_is_that_of_the_settings(name: str) -> None:
    spec, scaling = SCALED[name], Config().scaling
    assert spec["pollingInterval"] == scaling.every_s
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (scaling.least, scaling.most)
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (more,), (fewer,) = behavior["scaleUp"]["policies"], behavior["scaleDown"]["policies"]
    assert more == {"type": "Percent", "value": 100 * (URGENT - 1), "periodSeconds": scaling.more_after_s}
    assert fewer == {"type": "Percent", "value": 100 * (1 - IDLE), "periodSeconds": scaling.fewer_after_s}
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == scaling.fewer_after_s
    (cpu,) = (each for each in spec["triggers"] if each["type"] == "cpu")
    assert cpu == {
        "type": "cpu",
        "metricType": "Utilization",
        "metadata": {"value": f"{100 * PREVENTIVE_ABOVE:.0f}"},
    }


def test_the_image_has_all_rooms_and_runs_as_the_pods_do() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = {source for source, target in re.findall(r"^COPY (\w+) (\w+)$", text, re.M) if source == target}
    project = (DEPLOY.parent / "pyproject.toml").read_text()
    packages = re.search(r"^packages = \[(.*)\]$", project, re.M)
    assert packages is not None
    assert copied == set(re.findall(r'"(\w+)"', packages[1]))
    assert f"USER {USER}:{USER}" in text
    assert re.search(r'^ENTRYPOINT \["python", "-P", "-m"\]$', text, re.M)
