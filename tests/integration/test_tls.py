"""A cluster in which every connection is TLS with certificates on both sides: etcd, router, shard servers, clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from admin.local_cluster import LocalCluster
from admin.tensors import from_tensor
from cpp_ext import _rpc
from placement.connect import EtcdSettings, open_etcd
from protos import serving_pb2
from support.command_line import tessera
from support.etcd_process import Certificates, EtcdProcess, make_certificates
from support.held_tables import LOOKUP
from support.rpc_calls import Outcome, call, connected
from support.small_model import SmallModel
from support.tls import client, etcd_flags, load_model, shard_flags, tls_flags
from tessera.errors import Code, SettingsError, UnavailableError
from tessera.process_settings import ProcessSettings

pytestmark = pytest.mark.integration

PREDICT = "/tensorflow.serving.PredictionService/Predict"
VERSION = 1


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of another CA, which nobody of the cluster trusts."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdProcess]:
    with EtcdProcess(tls=True) as process:
        yield process


@pytest.fixture(scope="module")
def cluster(
    etcd: EtcdProcess, ours: Certificates, small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    assert etcd.certificates is not None
    to_etcd = etcd_flags(etcd.certificates)
    cluster = LocalCluster(
        repository=small_model.repository,
        directory=tmp_path_factory.mktemp("tls"),
        shards=2,
        router_listen="127.0.0.1:0",
        router_arguments=("--pollers=1", *to_etcd, *tls_flags(ours), *shard_flags(ours.ca, ours)),
        server_arguments=("--pollers=1", *to_etcd, *tls_flags(ours)),
    )
    cluster.etcd_endpoint = etcd.endpoint
    try:
        cluster.start_servers()
        cluster.start_router()
        asyncio.run(load_model(cluster, etcd.certificates, VERSION))
        yield cluster
    finally:
        cluster.stop()


def settled(channel: grpc.Channel, request: bytes) -> Outcome:
    """Ask until the router has the model (at most 20 s)."""
    end_s = time.monotonic() + 20
    while True:
        answer = call(channel, PREDICT, request)
        if answer.code != Code.NOT_FOUND or time.monotonic() > end_s:
            return answer
        time.sleep(0.05)


def test_a_client_with_a_certificate_is_served_through_tls_everywhere(
    cluster: LocalCluster, ours: Certificates, small_model: SmallModel
) -> None:
    with connected(cluster.router_address, credentials=client(ours, ours)) as channel:
        answer = settled(channel, small_model.request().SerializeToString())
    assert answer.code == Code.OK, answer.message
    response = serving_pb2.PredictResponse.FromString(answer.response)
    outputs = {alias: from_tensor(tensor) for alias, tensor in response.outputs.items()}
    assert outputs == small_model.expected[VERSION]


def test_status_asks_the_router_through_tls(cluster: LocalCluster, etcd: EtcdProcess, ours: Certificates) -> None:
    assert etcd.certificates is not None
    to_etcd = (f"--etcd={cluster.etcd_endpoint}", *etcd_flags(etcd.certificates))
    to_router = (f"--router-ca={ours.ca}", f"--router-cert={ours.certificate}", f"--router-key={ours.key}")
    (router,) = json.loads(tessera("status", *to_etcd, *to_router, "-o", "json").stdout)["routers"]
    assert router["address"] == cluster.router_address
    assert router["status"]["uptime_s"] > 0
    without = json.loads(tessera("status", *to_etcd, "-o", "json").stdout)
    assert without["routers"][0]["status"] is None
    assert without["problems"][0].startswith(f"router {router['id']}: no answer: UNAVAILABLE")


@pytest.mark.parametrize("who", ["router", "server-0"])
@pytest.mark.parametrize("with_what", ["nothing", "no certificate", "the certificate of a stranger", "another CA"])
def test_a_caller_without_the_right_certificate_is_refused(
    cluster: LocalCluster, ours: Certificates, strangers: Certificates, who: str, with_what: str
) -> None:
    ready = json.loads((cluster.directory / f"{who}.ready").read_text())
    credentials = {
        "nothing": None,
        "no certificate": client(ours, None),
        "the certificate of a stranger": client(ours, strangers),
        "another CA": client(strangers, ours),
    }[with_what]
    method = PREDICT if who == "router" else LOOKUP
    with connected(ready["address"], credentials=client(ours, ours)) as channel:
        assert call(channel, method).code in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    with connected(ready["address"], credentials=credentials) as channel:
        assert call(channel, method, timeout_s=5.0).code == Code.UNAVAILABLE


@pytest.mark.parametrize("wrong", ["CA", "certificate"])
def test_a_router_that_shards_do_not_trust_answers_unavailable_and_names_the_server(
    cluster: LocalCluster,
    etcd: EtcdProcess,
    ours: Certificates,
    strangers: Certificates,
    small_model: SmallModel,
    tmp_path: Path,
    wrong: str,
) -> None:
    assert etcd.certificates is not None
    flags = shard_flags(strangers.ca, ours) if wrong == "CA" else shard_flags(ours.ca, strangers)
    router = LocalCluster(
        repository=cluster.repository,
        directory=tmp_path,
        shards=0,
        router_listen="127.0.0.1:0",
        router_arguments=("--pollers=1", *etcd_flags(etcd.certificates), *flags),
    )
    router.etcd_endpoint = cluster.etcd_endpoint
    try:
        router.start_router()
        with connected(router.router_address) as channel:
            answer = settled(channel, small_model.request().SerializeToString())
    finally:
        router.stop()
    assert answer.code == Code.UNAVAILABLE, answer
    assert "server-" in answer.message


def test_etcd_refuses_a_store_without_the_right_certificate(etcd: EtcdProcess, strangers: Certificates) -> None:
    assert etcd.certificates is not None

    async def read(ca: Path, pair: Certificates) -> None:
        store = open_etcd(EtcdSettings((etcd.endpoint,), str(ca), str(pair.certificate), str(pair.key)))
        try:
            await store.get("key")
        finally:
            await store.close()

    asyncio.run(read(etcd.certificates.ca, etcd.certificates))
    for ca, pair in ((etcd.certificates.ca, strangers), (strangers.ca, etcd.certificates)):
        with pytest.raises(UnavailableError):
            asyncio.run(read(ca, pair))


def test_tls_on_the_servers_side_only(ours: Certificates) -> None:
    """Callers need no certificate where no client CA is given."""
    server = _rpc.Server(
        address="127.0.0.1:0",
        pollers=1,
        tls_certificate=ours.certificate.read_bytes(),
        tls_private_key=ours.key.read_bytes(),
    )
    server.serve_python("/test.Service/Do", lambda request: request)
    try:
        port = server.start()
        with connected(port, credentials=client(ours, None)) as channel:
            assert call(channel, "/test.Service/Do", b"hello").response == b"hello"
        with connected(port) as channel:
            assert call(channel, "/test.Service/Do", b"hello", timeout_s=5.0).code == Code.UNAVAILABLE
    finally:
        server.stop()


def test_a_missing_certificate_file_is_named_by_its_flag(tmp_path: Path) -> None:
    settings = ProcessSettings(tls_cert=str(tmp_path / "none.pem"), tls_key=str(tmp_path / "key.pem"))
    with pytest.raises(SettingsError, match=rf"--tls-cert {tmp_path}/none\.pem: No such file"):
        settings.read_file("tls_cert")
