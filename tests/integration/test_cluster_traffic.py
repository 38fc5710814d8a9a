"""Models of a cluster are divided, copied, labelled and logged as plain models are, by the same configuration."""

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families

from admin.local_cluster import LocalCluster
from admin.serving_client import PREDICTION_SERVICE, call, open_channel
from admin.tensors import from_tensor
from placement.connect import EtcdSettings, open_etcd
from placement.keys import Keys
from placement.records import TrafficRecord
from protos import model_server_config_pb2, prediction_log_pb2, serving_pb2
from router.record_files import SUFFIX
from router.reload_service import RELOAD_CONFIG
from router.tfrecord import read_records
from support.model_server import wait_for
from support.resharding import found
from support.running import ClusterFactory
from support.serving import predict
from support.small_model import MODEL, SmallModel
from tessera.errors import Code, TesseraError

pytestmark = pytest.mark.integration

_USERS = [f"user-{i}" for i in range(40)]
_WAIT_S = 30.0


def _reload(channel: grpc.Channel, more: str) -> None:
    """Give the router a configuration that has nothing but the cluster's model, with the fields `more`."""
    config = text_format.Parse(
        f'model_config_list {{ config {{ name: "{MODEL}" model_platform: "cluster" {more} }} }}',
        model_server_config_pb2.ModelServerConfig(),
    )
    request = serving_pb2.ReloadConfigRequest(config=config.SerializeToString())
    call(channel, RELOAD_CONFIG, request.SerializeToString(), _WAIT_S)


def _ask(channel: grpc.Channel, small_model: SmallModel, user: str) -> int:
    """Return the version that answers `user`, whose answer has to be right."""
    predict_bytes: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICTION_SERVICE + "Predict")
    answer = predict_bytes(small_model.request().SerializeToString(), timeout=_WAIT_S, metadata=(("x-user", user),))
    response = serving_pb2.PredictResponse.FromString(answer)
    version: int = response.model_spec.version.value
    assert {alias: from_tensor(one) for alias, one in response.outputs.items()} == small_model.expected[version]
    return version


def _metric(cluster: LocalCluster, name: str, labels: Mapping[str, str]) -> float:
    with urllib.request.urlopen(f"http://{cluster.metrics_address}/metrics", timeout=_WAIT_S) as response:
        text = response.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name and dict(sample.labels) == labels
    )


def _let_the_cluster_split(cluster: LocalCluster, traffic: TrafficRecord) -> None:
    """Put `traffic` into the model's pointer, for all routers."""
    current = found(cluster).current
    assert current is not None

    async def write() -> None:
        store = open_etcd(EtcdSettings((cluster.etcd_endpoint,)))
        try:
            await store.put(Keys(cluster.cluster).current(MODEL), replace(current, traffic=traffic).to_bytes())
        finally:
            await store.close()

    asyncio.run(write())


def _copies(cluster: LocalCluster, *results: str) -> list[float]:
    return [_metric(cluster, "tessera_shadow_requests", {"model_name": MODEL, "result": result}) for result in results]


def _logged_versions(directory: Path) -> list[int]:
    """Return the versions in the finished files of a request log."""
    versions = []
    for path in directory.glob(f"ranker-*{SUFFIX}"):
        with path.open("rb") as file:
            for record in read_records(file, str(path)):
                log = prediction_log_pb2.PredictionLog.FromString(record)
                versions.append(log.log_metadata.model_spec.version.value)
    return versions


def test_split_copies_labels_and_log(start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path) -> None:
    cluster = start_cluster(shards=2, labels={"stable": 1}, router_arguments=("--metrics-port=0",))
    more = """
        version_labels { key: "canary" value: 2 }
        traffic_split {
            share { label: "stable" percent: 50 } share { label: "canary" percent: 50 } sticky_header: "X-User"
        }
        shadow { label: "canary" }
        logging_config {
            log_collector_config { filename_prefix: "%s/ranker" } sampling_config { sampling_rate: 1 }
        }
    """
    log = tmp_path / "log"
    with open_channel(cluster.router_address) as channel:
        assert {_ask(channel, small_model, user) for user in _USERS} == {2}
        _reload(channel, more % log)
        versions = {user: _ask(channel, small_model, user) for user in _USERS}
        assert set(versions.values()) == {1, 2}
        assert {user: _ask(channel, small_model, user) for user in _USERS} == versions
        for label, version in (("stable", 1), ("canary", 2)):
            request = small_model.request()
            request.model_spec.version_label = label
            assert predict(channel, request, _WAIT_S) == (small_model.expected[version], version)
        first = 2 * list(versions.values()).count(1) + 1  # what version 1 answered was copied to version 2
        wait_for(
            lambda: sum(_copies(cluster, "different", "dropped")) == first, _WAIT_S
        )  # dropped: the machine is slow
        assert _copies(cluster, "different")[0] > 0
        shares = [
            _metric(cluster, "tessera_traffic_split_requests", {"model_name": MODEL, "share": share})
            for share in ("stable", "canary")
        ]
        assert shares == [first - 1, 80 - (first - 1)]
        with pytest.raises(TesseraError, match="Request to assign label to version 3 of model ranker") as caught:
            _reload(channel, 'version_labels { key: "canary" value: 3 }')
        assert caught.value.code == Code.FAILED_PRECONDITION
        assert {user: _ask(channel, small_model, user) for user in _USERS} == versions
        _reload(channel, "")
        assert {_ask(channel, small_model, user) for user in _USERS} == {2}
        _let_the_cluster_split(cluster, TrafficRecord({"stable": 5000, "2": 5000}, "x-user"))
        wait_for(lambda: {_ask(channel, small_model, user) for user in _USERS} == {1, 2}, _WAIT_S)
        _reload(channel, "traffic_split { share { version: 1 percent: 100 } }")
        assert {_ask(channel, small_model, user) for user in _USERS} == {1}
        request.model_spec.version_label = "canary"
        with pytest.raises(TesseraError, match="Unrecognized servable version label: canary"):
            predict(channel, request)
    wait_for(lambda: len(_logged_versions(log)) == 122, _WAIT_S)
    assert set(_logged_versions(log)) == {1, 2}
