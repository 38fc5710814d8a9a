"""Probes and metrics of both processes, as Kubernetes and Prometheus ask for them."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from admin.local_cluster import LocalCluster
from admin.processes import bound_to_parent
from admin.serving_client import open_channel
from support.running import ClusterFactory
from support.serving import predict
from support.small_model import SmallModel
from tessera.monitoring_port import METRICS_PATHS

pytestmark = pytest.mark.integration

_TIMEOUT_S = 60.0


def _get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_TIMEOUT_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _readiness(address: str) -> Any:
    status, text = _get(address, "/readyz")
    content = json.loads(text)
    assert (status, content["status"]) == ((503, "not ready") if content["missing"] else (200, "ready"))
    return content["missing"]


def _metrics(address: str) -> dict[str, float]:
    status, text = _get(address, METRICS_PATHS[0])
    assert status == 200
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


def _until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _metrics_address(cluster: LocalCluster, name: str) -> str:
    ready_file = cluster.directory / f"{name}.ready"
    _until(f"{name} is registered", ready_file.exists)
    return str(json.loads(ready_file.read_text())["metrics"])


def test_both_processes_answer_and_a_server_is_ready_when_it_holds_what_is_current(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    repository = shutil.copytree(small_model.repository, tmp_path / "repository")
    monitored = ("--metrics-port=0",)
    cluster = start_cluster(repository=repository, shards=2, router_arguments=monitored, server_arguments=monitored)
    addresses = [cluster.metrics_address, *(_metrics_address(cluster, f"server-{i}") for i in range(2))]
    with open_channel(cluster.router_address) as channel:
        assert predict(channel, small_model.request())[0] == small_model.expected[2]
    for address in addresses:
        assert _get(address, "/healthz") == (200, '{"status": "alive"}')
        _until("all is ready", lambda address=address: _readiness(address) == [])  # type: ignore[misc]
        metrics = _metrics(address)
        assert (metrics["tessera_ready"], metrics["tessera_store_connected"]) == (1, 1)
        assert metrics["tessera_placement_epoch"] >= 1
        assert metrics["process_resident_memory_bytes"] > 0
    servers = [_metrics(address) for address in addresses[1:]]
    assert sum(metrics["tessera_lookup_requests_total"] for metrics in servers) >= 1
    assert all(metrics["tessera_held_bytes"] > 0 and metrics["tessera_held_buckets"] > 0 for metrics in servers)

    # A server that comes back without its blobs lives, and says why it is not ready; then it gets them back.
    child = next(child for child in cluster.children.children if child.name == "server-0")
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(_TIMEOUT_S) == 0
    (repository / "blobs").rename(repository / "away")
    cluster.start_server("server-0")
    address = _metrics_address(cluster, "server-0")
    _until("it has tried", lambda: any("no such file" in text for text in _readiness(address)))
    assert _get(address, "/healthz")[0] == 200
    metrics = _metrics(address)
    assert (metrics["tessera_ready"], metrics["tessera_held_bytes"]) == (0, 0)
    assert metrics["tessera_hold_failures_total"] >= 1
    (repository / "away").rename(repository / "blobs")
    _until("it is ready", lambda: _readiness(address) == [])


def test_a_server_that_waits_for_etcd_lives_and_is_not_ready(tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    command = [sys.executable, "-m", "shard_server", "--server-id=s0", "--listen=127.0.0.1:0", "--pollers=1"]
    nowhere = ["--etcd=127.0.0.1:1", f"--repository={tmp_path}", "--metrics-port=0", "--drain-timeout-s=1"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(bound_to_parent([*command, *nowhere]), stdout=log, stderr=log)
    try:
        _until("it listens", lambda: "metrics on http://" in log_path.read_text())
        address = log_path.read_text().partition("metrics on http://")[2].partition("/")[0]
        assert _get(address, "/healthz")[0] == 200
        assert _readiness(address) == ["the placement has not been read yet"]
        assert _metrics(address)["tessera_store_connected"] == 0
    finally:
        process.terminate()
        assert process.wait(_TIMEOUT_S) == 0
