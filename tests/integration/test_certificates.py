"""Certificates that are replaced while processes serve: shown to whoever connects from then on, no restart."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.local_cluster import LocalCluster
from admin.tensors import from_tensor
from protos import serving_pb2
from support.etcd_process import Certificates, EtcdProcess, make_certificates
from support.half_plus import half_plus
from support.model_server import model_server, wait_for
from support.rpc_calls import call, connected
from support.small_model import SmallModel
from support.tls import client, etcd_flags, load_model, shard_flags, tls_flags
from tessera.certificates import validity
from tessera.errors import Code

pytestmark = pytest.mark.integration

PREDICT = "/tensorflow.serving.PredictionService/Predict"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another CA, so that nothing of the old ones can be in use unseen."""
    return make_certificates(tmp_path_factory.mktemp("after"), days=2)


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    """Where the processes read theirs; `use` fills it."""
    directory = tmp_path / "files"
    directory.mkdir()
    return Certificates(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")


def use(files: Certificates, new: Certificates) -> None:
    """Replace one file after the other, as an operator does."""
    for target, source in ((files.ca, new.ca), (files.certificate, new.certificate), (files.key, new.key)):
        hidden = target.with_suffix(".new")
        hidden.write_bytes(source.read_bytes())
        hidden.rename(target)


def asks(address: str, pair: Certificates, request: bytes = b"") -> Code:
    """Return the code that a new connection with the certificates of `pair` gets."""
    with connected(address, credentials=client(pair, pair)) as channel:
        return call(channel, PREDICT, request, timeout_s=20.0).code


def told_end_s(address: str) -> float:
    """Return until when the certificate holds that a process says it shows."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    (value,) = re.findall(r"^tessera_certificate_expiration_timestamp_seconds (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.fixture
def cluster(
    before: Certificates, files: Certificates, small_model: SmallModel, tmp_path: Path
) -> Iterator[LocalCluster]:
    """A router and a shard server with TLS on both sides everywhere, on `before`."""
    use(files, before)
    with EtcdProcess(tls=True) as etcd:
        assert etcd.certificates is not None
        both = ("--pollers=1", "--tls-poll-s=1", "--metrics-port=0", *etcd_flags(etcd.certificates), *tls_flags(files))
        found = LocalCluster(
            repository=small_model.repository,
            directory=tmp_path / "cluster",
            shards=1,
            router_listen="127.0.0.1:0",
            router_arguments=(*both, "--retry-delay-s=1", *shard_flags(files.ca, files)),
            server_arguments=both,
        )
        found.directory.mkdir()
        found.etcd_endpoint = etcd.endpoint
        try:
            found.start_servers()
            found.start_router()
            asyncio.run(load_model(found, etcd.certificates, 1))
            yield found
        finally:
            found.stop()


def test_router_and_shard_server_take_up_new_certificates(
    cluster: LocalCluster, before: Certificates, after: Certificates, files: Certificates, small_model: SmallModel
) -> None:
    request, router = small_model.request(version=1).SerializeToString(), cluster.router_address
    (shard,) = [child for child in cluster.children.children if child.name == "server-0"]
    wait_for(lambda: asks(router, before, request) == Code.OK, WAIT_S)
    with connected(router, credentials=client(before, before)) as channel:
        assert call(channel, PREDICT, request).code == Code.OK
        use(files, after)
        wait_for(lambda: asks(router, after) != Code.UNAVAILABLE, WAIT_S)
        assert asks(router, before) == Code.UNAVAILABLE
        assert call(channel, PREDICT, request).code == Code.OK  # a connection that was there goes on
    ready = json.loads((cluster.directory / "server-0.ready").read_text())
    wait_for(lambda: asks(ready["address"], after) == Code.UNIMPLEMENTED, WAIT_S, tell=shard.tail)
    held = validity(after.certificate.read_bytes())
    assert held is not None
    for address in (cluster.metrics_address, ready["metrics"]):
        wait_for(lambda address=address: told_end_s(address) == held.end_s, WAIT_S)  # type: ignore[misc]
    assert asks(ready["address"], before) == Code.UNAVAILABLE
    # A new process of the shard server trusts the new CA only: the router has to come with its new certificate.
    shard.process.terminate()
    shard.process.wait(WAIT_S)
    cluster.start_server("server-0")
    wait_for(lambda: asks(router, after, request) == Code.OK, WAIT_S)
    with connected(router, credentials=client(after, after)) as channel:
        response = serving_pb2.PredictResponse.FromString(call(channel, PREDICT, request).response)
    assert {alias: from_tensor(one) for alias, one in response.outputs.items()} == small_model.expected[1]


def test_a_wrong_file_changes_nothing_until_it_is_right(
    before: Certificates, after: Certificates, tmp_path: Path
) -> None:
    half_plus(tmp_path / "half" / "1", 2.0)

    def config(pair: Certificates) -> str:
        key, certificate = (path.read_text().replace("\n", "\\n") for path in (pair.key, pair.certificate))
        return f'server_key: "{key}" server_cert: "{certificate}"'

    path = tmp_path / "ssl.txt"
    path.write_text(config(before))
    arguments = ("--model_name=half", f"--model_base_path={tmp_path / 'half'}", f"--ssl_config_file={path}")
    with model_server(tmp_path / "server", *arguments, "--tls_poll_s=0.2", rest=False) as server:
        assert asks(server.address, before) == Code.INVALID_ARGUMENT
        key_of_another = Certificates(before.ca, after.certificate, before.key)
        for wrong, said in ((config(key_of_another), "is not the key of"), ("server_key: 1", "Invalid protobuf file")):
            path.write_text(wrong)
            wait_for(lambda said=said: said in server.stderr, WAIT_S)  # type: ignore[misc]
            assert asks(server.address, before) == Code.INVALID_ARGUMENT
        path.write_text(config(after))
        wait_for(lambda: asks(server.address, after) == Code.INVALID_ARGUMENT, WAIT_S)
        assert asks(server.address, before) == Code.UNAVAILABLE
        assert server.stop() == 0
