"""The manifests say to our processes what they understand: flags, environment, files, ports, paths, times."""

from pathlib import Path

import pytest

from router.settings import RouterSettings
from shard_server.memory import blob_share
from shard_server.settings import ShardServerSettings
from support.k8s_objects import OVERLAYS, Object, containers, jobs, of_kind, one, pods, rendered
from support.k8s_settings import settings, words
from tessera.monitoring_port import PATHS
from tessera.probes import LIVE_PATH, READY_PATH

overlays = pytest.mark.parametrize("overlay", OVERLAYS)
STOPPING_S = 10
"""What a process may take to leave the cluster and end, after the drain."""


def _server(objects: tuple[Object, ...], name: str) -> tuple[Object, Object]:
    """Return pod and container of the router or of the shard server."""
    kind = {"router": "Deployment", "shard": "StatefulSet"}[name]
    pod = one(objects, kind, f"tessera-{name}")["spec"]["template"]
    (container,) = containers(pod)
    return pod, container


def _config(pod: Object) -> str:
    (name,) = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume]
    return str(name)


def _router(overlay: str, directory: Path) -> RouterSettings:
    pod, container = _server(rendered(overlay), "router")
    found = settings(rendered(overlay), container, _config(pod), directory)
    assert isinstance(found, RouterSettings)
    return found


def _shard(overlay: str, directory: Path) -> ShardServerSettings:
    pod, container = _server(rendered(overlay), "shard")
    found = settings(rendered(overlay), container, _config(pod), directory)
    assert isinstance(found, ShardServerSettings)
    return found


@overlays
def test_processes_take_their_settings_and_listen_where_the_pods_say(overlay: str, tmp_path: Path) -> None:
    router, shard = _router(overlay, tmp_path), _shard(overlay, tmp_path)
    addresses = {"grpc": router.listen, "rest": router.rest_listen, "metrics": f":{router.metrics_port}"}
    listening = {name: int(address.rpartition(":")[2]) for name, address in addresses.items() if address}
    _, container = _server(rendered(overlay), "router")
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == listening
    _, container = _server(rendered(overlay), "shard")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(shard.listen.rpartition(":")[2]), "metrics": shard.metrics_port}
    assert router.cluster == shard.cluster
    assert router.etcd == shard.etcd


@overlays
def test_ports_listen_on_every_address(overlay: str, tmp_path: Path) -> None:
    router, shard = _router(overlay, tmp_path), _shard(overlay, tmp_path)
    for listen in (router.listen, router.rest_listen, shard.listen):
        assert not listen or listen.startswith("0.0.0.0:")


@overlays
def test_a_shard_server_registers_the_name_that_its_service_gives_it(overlay: str, tmp_path: Path) -> None:
    shard = _shard(overlay, tmp_path)
    service = one(rendered(overlay), "StatefulSet", "tessera-shard")["spec"]["serviceName"]
    assert shard.server_id == "tessera-pod-0"
    assert shard.advertise == f"tessera-pod-0.{service}.tessera.svc:8600"
    assert shard.domain == "node-a"


@overlays
def test_blobs_get_three_quarters_of_the_containers_memory(overlay: str, tmp_path: Path) -> None:
    shard = _shard(overlay, tmp_path)
    assert shard.memory_limit_bytes >= 1 << 30
    assert blob_share(shard.memory_limit_bytes) == shard.memory_limit_bytes * 3 // 4


@overlays
def test_files_that_settings_name_lie_on_mounted_volumes(overlay: str, tmp_path: Path) -> None:
    for name, found in (("router", _router(overlay, tmp_path)), ("shard", _shard(overlay, tmp_path))):
        _, container = _server(rendered(overlay), name)
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        for field in found.__dataclass_fields__:
            value = getattr(found, field)
            if isinstance(value, str) and value.startswith("/") and "path" not in field:
                place = [path for path in mounts if value == path or value.startswith(f"{path}/")]
                assert place, f"{field}={value}"
                written = field in ("state_dir", "blob_dir")
                assert mounts[place[0]].get("readOnly", False) is not written, field


@overlays
def test_probes_ask_what_the_servers_answer(overlay: str) -> None:
    assert {LIVE_PATH, READY_PATH} <= set(PATHS)
    for name in ("router", "shard"):
        _, container = _server(rendered(overlay), name)
        paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert paths == {
            "startupProbe": {"path": READY_PATH, "port": "metrics"},
            "readinessProbe": {"path": READY_PATH, "port": "metrics"},
            "livenessProbe": {"path": LIVE_PATH, "port": "metrics"},
        }
        assert "metrics" in {port["name"] for port in container["ports"]}


@overlays
def test_there_is_time_for_the_drain(overlay: str, tmp_path: Path) -> None:
    router, shard = _router(overlay, tmp_path), _shard(overlay, tmp_path)
    drains_s = {
        "router": router.drain_timeout_s,
        "shard": max(shard.drain_notice_s, shard.drain_timeout_s) + shard.drain_timeout_s,
    }
    for name, drain_s in drains_s.items():
        pod, container = _server(rendered(overlay), name)
        sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["spec"]["terminationGracePeriodSeconds"] >= sleep_s + drain_s + STOPPING_S


@pytest.mark.parametrize("overlay", ["kind", "dev", "chart"])
def test_the_etcd_of_development_is_where_the_processes_look(overlay: str, tmp_path: Path) -> None:
    (endpoint,) = _router(overlay, tmp_path).etcd
    host, _, port = endpoint.partition(":")
    service = one(rendered(overlay), "Service", host)
    assert int(port) in {entry["port"] for entry in service["spec"]["ports"]}


@pytest.mark.parametrize("overlay", ["prod", "gpu"])
def test_production_has_tls_on_every_port_and_to_everybody(overlay: str, tmp_path: Path) -> None:
    router, shard = _router(overlay, tmp_path), _shard(overlay, tmp_path)
    assert router.tls_cert
    assert router.shard_tls_ca
    assert router.shard_tls_cert
    assert not router.rest_listen  # REST has no TLS
    assert shard.tls_client_ca
    assert router.etcd_cert
    assert shard.etcd_cert
    service = one(rendered(overlay), "Service", "tessera-router")
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"]


@overlays
def test_commands_of_jobs_are_commands_of_tessera(overlay: str) -> None:
    from admin.cli import build_parser

    objects = (*rendered(overlay), *jobs())
    (job,) = of_kind(objects, "Job")
    found = 0
    for _, pod in pods((*rendered(overlay), job)):
        for container in containers(pod):
            if container.get("command") == ["tessera"]:
                build_parser().parse_args(words(objects, container))
                found += 1
    assert found >= 1
