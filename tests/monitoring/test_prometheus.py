"""A real Prometheus scrapes a router and shard servers, evaluates every rule and panel, and notices what breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel, wait_until_available
from support.batched_model import WIDTH, save_batched_model
from support.monitoring import alerts, dashboards, groups, panel_expressions, rule_file, rules
from support.prometheus_process import PrometheusProcess
from support.promql import names
from support.resharding import reshard
from support.running import run_cluster
from support.serving import FLOAT32, Load, predict, predict_request
from support.small_model import SmallModel, make_small_model

pytestmark = pytest.mark.timeout(900)

BATCHED = "network"
SILENT = {
    "tessera_certificate_expiration_timestamp_seconds": "the cluster has no TLS",
    "tessera_certificate_start_timestamp_seconds": "the cluster has no TLS",
    "tessera_traffic_split_requests_total": "no split",
    "tessera_traffic_split_rerouted_total": "no split",
    "tessera_shadow_requests_total": "no copies",
    ":tensorflow:serving:request_log_count": "no request log",
    ":tensorflow:serving:request_example_counts_sum": "no Classify",
    ":tensorflow:serving:request_example_counts_count": "no Classify",
    "tessera_operation_state": "no change is under way",
    "tessera_predict_errors_total": "nothing fails",
    "ALERTS": "nothing is wrong",
}
"""Metrics that have no series in this cluster, and why."""


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("small_model"))


@pytest.fixture
def cluster(tmp_path: Path, small_model: SmallModel) -> Iterator[LocalCluster]:
    """Two shard servers with two replicas, and a router that serves a batched plain model, too."""
    batched = save_batched_model(tmp_path / BATCHED)
    port = ("--metrics-port=0",)
    (tmp_path / "cluster").mkdir()
    with run_cluster(
        tmp_path / "cluster",
        small_model.repository,
        shards=2,
        replicas=2,
        router_arguments=(*port, f"--saved-model={BATCHED}={batched}"),
        server_arguments=port,
    ) as found:
        wait_until_available(found.router_address, {BATCHED: [1]}, timeout_s=60)
        yield found


def _metrics(cluster: LocalCluster, name: str) -> str:
    address: str = json.loads((cluster.directory / f"{name}.ready").read_text("utf-8"))["metrics"]
    return address


def _targets(cluster: LocalCluster) -> dict[str, list[str]]:
    servers = [_metrics(cluster, f"server-{i}") for i in range(2)]
    return {"tessera-router": [_metrics(cluster, "router")], "tessera-shard": servers}


def _without_waiting(path: Path) -> Path:
    """Write the rules with `for` taken out, so that a test need not wait for half an hour."""
    changed = [
        {**group, "rules": [{key: value for key, value in rule.items() if key != "for"} for rule in group["rules"]]}
        for group in groups()
    ]
    path.write_text(json.dumps({"groups": changed}), "utf-8")
    return path


def test_rules_and_panels_have_the_data_that_they_ask_for(
    cluster: LocalCluster, small_model: SmallModel, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(rule_file(), "utf-8")
    batched = predict_request(BATCHED, {"x": ([[1.0] * WIDTH], FLOAT32)})
    with (
        PrometheusProcess(tmp_path, _targets(cluster), [tmp_path / "rules.yaml"]) as prometheus,
        Load(cluster.router_address, small_model.request(2), small_model.expected[2], threads=1),
        open_channel(cluster.router_address) as channel,
    ):

        def goes_on() -> bool:
            predict(channel, batched)
            return prometheus.query('rate(tessera_requests_total{model_name="network",status="OK"}[1m]) > 0') != []

        prometheus.wait_for(goes_on)
        prometheus.wait_for(lambda: len(prometheus.query("up == 1")) == 3)
        known = prometheus.get("metadata")
        for name, expression in _all_expressions():
            for metric in names(expression).metrics:
                family = metric
                for suffix in ("_bucket", "_sum", "_count"):
                    family = family if family in known else metric.removesuffix(suffix)
                assert family in known or metric in _recorded() or metric in ("up", "ALERTS"), f"{name}: {metric}"

        for file, board in dashboards().items():
            for title, expression in panel_expressions(board):
                if names(expression).metrics.keys() & SILENT.keys() or " > 0" in expression[-4:]:
                    prometheus.query(expression)  # it is at least understood
                else:
                    prometheus.wait_for(
                        lambda expression=expression: goes_on() and prometheus.query(expression) != [],  # type: ignore[misc]
                        tell=lambda file=file, title=title: f"{file}: {title}: no data",  # type: ignore[misc]
                    )
        for metric, why in SILENT.items():
            prometheus.wait_for(
                lambda metric=metric: prometheus.query(metric) == [],  # type: ignore[misc]
                tell=lambda metric=metric, why=why: f"{metric} is there, although {why}",  # type: ignore[misc]
            )
        prometheus.wait_for(lambda: set(_health(prometheus).values()) == {"ok"}, tell=lambda: _health(prometheus))
        assert len(_health(prometheus)) == len(rules())
        assert prometheus.firing() == {}


def _health(prometheus: PrometheusProcess) -> dict[str, str]:
    """Return rule → how its last evaluation went."""
    return {rule["name"]: rule["health"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]}


def _all_expressions() -> list[tuple[str, str]]:
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return found + [one for board in dashboards().values() for one in panel_expressions(board)]


def _recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def test_what_breaks_is_noticed(cluster: LocalCluster, tmp_path: Path) -> None:
    changed = _without_waiting(tmp_path / "rules.yaml")
    with PrometheusProcess(tmp_path, _targets(cluster), [changed]) as prometheus:

        def fires(*alerts_: str) -> None:
            prometheus.wait_for(lambda: set(alerts_) <= prometheus.firing().keys(), tell=prometheus.firing)
            for found in prometheus.firing().values():
                for alert in found:
                    assert "error" not in alert["annotations"]["summary"].lower(), alert
                    assert alert["annotations"]["runbook_url"]
                    assert "<no value>" not in alert["annotations"]["summary"], alert

        prometheus.wait_for(lambda: len(prometheus.query("up == 1")) == 3)
        prometheus.wait_for(lambda: prometheus.query("tessera_placement_ready_owners == 2") != [])
        prometheus.wait_for(lambda: prometheus.firing() == {}, tell=prometheus.firing)
        held = reshard(cluster, "start", "--remove=server-1", "--replicas=1", "--no-commit")
        assert held.returncode == 0, held.stderr
        fires("TesseraOperationForgotten")
        prometheus.wait_for(lambda: prometheus.query('tessera_operation_state{state!="STOPPED"}') == [])
        given_up = reshard(cluster, "abort")
        assert given_up.returncode == 0, given_up.stderr
        prometheus.wait_for(lambda: prometheus.firing() == {}, tell=prometheus.firing)
        servers = [_process(cluster, f"server-{i}") for i in range(2)]
        servers[0].kill()
        fires("TesseraReplicasMissing", "TesseraNotScraped")
        prometheus.wait_for(lambda: prometheus.query("min(tessera_placement_ready_owners) == 1") != [])
        prometheus.wait_for(lambda: "TesseraSlotsWithoutOwner" not in prometheus.firing(), tell=prometheus.firing)
        servers[1].kill()
        fires("TesseraSlotsWithoutOwner")
        (alert,) = prometheus.firing()["TesseraSlotsWithoutOwner"]  # no server is left that could come back
        assert alert["labels"]["model_name"] == "ranker"
        assert alert["labels"]["severity"] == alerts()["TesseraSlotsWithoutOwner"]["labels"]["severity"]
        prometheus.wait_for(lambda: "TesseraStoreLost" not in prometheus.firing(), tell=prometheus.firing)
        _process(cluster, "etcd").kill()
        fires("TesseraStoreLost")
        # The router no longer knows whether the servers are there, so it is not asked.
        prometheus.wait_for(lambda: "TesseraSlotsWithoutOwner" not in prometheus.firing(), tell=prometheus.firing)
        _process(cluster, "router").kill()
        fires("TesseraNoRouter")


def _process(cluster: LocalCluster, name: str) -> Any:
    (child,) = [child for child in cluster.children.children if child.name == name]
    return child.process
