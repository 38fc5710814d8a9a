"""Blobs from one server to another: the real server and client, on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cpp_ext import _rpc
from protos import data_plane_pb2 as pb
from shard_server.staging.origin import Mounted, ObjectStore, is_url, open_origin
from shard_server.staging.peers import READ_BLOB, Peer, Peers, PeerTls
from shard_server.staging.rate_limit import RateLimit
from shard_server.staging.service import BlobService
from support.blobs import digest_of, put
from support.etcd_process import make_certificates
from support.plain_packages import write_package
from tessera.errors import (
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    TesseraError,
    UnavailableError,
)
from tessera.repository import Repository

pytestmark = pytest.mark.native

CONTENT = bytes(range(256)) * 41
DIGEST = digest_of(CONTENT)
CHUNK = 4096


class Served:
    def __init__(self, root: Path) -> None:
        put(root, {DIGEST: CONTENT})
        self.paths = {DIGEST: Repository(root).blob_path(DIGEST)}
        self.server = _rpc.Server(address="127.0.0.1:0", pollers=1)
        self.service = BlobService(self.paths.get, RateLimit(0), CHUNK)
        self.server.serve_python(READ_BLOB, self.service.read, own_thread=True)
        self.address = f"127.0.0.1:{self.server.start()}"
        self.peers = Peers(None, CHUNK)

    @property
    def peer(self) -> Peer:
        return self.peers.peer("s1", self.address)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.peers.keep_only(())
    served.server.stop()


def _read_all(read: Callable[[str, int, int], bytes], length: int) -> bytes:
    content = b""
    while chunk := read(DIGEST, len(content), length):
        assert len(chunk) <= length
        content += chunk
    return content


def test_a_peer_gives_a_blob_in_chunks(served: Served) -> None:
    assert _read_all(served.peer.read, 1000) == CONTENT
    assert _read_all(served.peer.read, 1 << 30) == CONTENT  # it sends fewer bytes at once than it is asked for
    assert len(served.peer.read(DIGEST, 0, 1 << 30)) == CHUNK


def test_what_a_peer_does_not_have_is_said(served: Served) -> None:
    with pytest.raises(NotFoundError, match=rf"server s1 \({served.address}\): blob {'0' * 64}: is not on this server"):
        served.peer.read("0" * 64, 0, 10)
    served.paths[DIGEST].unlink()
    with pytest.raises(NotFoundError, match="is no longer on this server"):
        served.peer.read(DIGEST, 0, 10)
    served.paths[DIGEST].mkdir()
    with pytest.raises(DataLossError, match="cannot be read"):
        served.peer.read(DIGEST, 0, 10)


@pytest.mark.parametrize(
    ("request_bytes", "says"),
    [
        (b"\xff", "ReadBlobRequest: cannot be parsed"),
        (pb.ReadBlobRequest(digest=b"x", length=1).SerializeToString(), "digest: got 1 bytes, expected 32"),
        (pb.ReadBlobRequest(digest=b"x" * 32).SerializeToString(), "length: got 0"),
        (pb.ReadBlobRequest(digest=b"x" * 32, length=1, offset=1 << 63).SerializeToString(), "offset: got"),
    ],
)
def test_malformed_requests_are_refused(served: Served, request_bytes: bytes, says: str) -> None:
    with grpc.insecure_channel(served.address) as channel:
        call: Any = channel.unary_unary(READ_BLOB)
        with pytest.raises(grpc.RpcError, match=says) as caught:
            call(request_bytes, timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_peer_that_is_gone_is_unavailable(served: Served) -> None:
    served.server.stop()
    with pytest.raises(UnavailableError, match="server s1"):
        served.peer.read(DIGEST, 0, 10)


def test_peers_show_certificates_to_each_other(tmp_path: Path) -> None:
    for name in ("ours", "strangers"):
        (tmp_path / name).mkdir()
    ours, strangers = make_certificates(tmp_path / "ours"), make_certificates(tmp_path / "strangers")
    put(tmp_path, {DIGEST: CONTENT})
    service = BlobService({DIGEST: Repository(tmp_path).blob_path(DIGEST)}.get, RateLimit(0), CHUNK)
    server = _rpc.Server(
        address="127.0.0.1:0",
        pollers=1,
        tls_certificate=ours.certificate.read_bytes(),
        tls_private_key=ours.key.read_bytes(),
        tls_client_ca=ours.ca.read_bytes(),
    )
    server.serve_python(READ_BLOB, service.read, own_thread=True)
    address = f"127.0.0.1:{server.start()}"
    pair = {"certificate": ours.certificate.read_bytes(), "private_key": ours.key.read_bytes()}
    ways = {
        "right": PeerTls(ours.ca.read_bytes(), **pair),
        "nothing shown": PeerTls(ours.ca.read_bytes()),
        "another CA": PeerTls(strangers.ca.read_bytes(), **pair),
        "no TLS": None,
    }
    try:
        for way, tls in ways.items():
            peers = Peers(tls, CHUNK)
            if way == "right":
                assert peers.peer("s1", address).read(DIGEST, 0, CHUNK) == CONTENT[:CHUNK]
            else:
                with pytest.raises(UnavailableError, match="server s1"):
                    peers.peer("s1", address).read(DIGEST, 0, CHUNK)
            peers.keep_only(())
    finally:
        server.stop()


def test_a_limit_is_kept_by_the_giving_side(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    service = BlobService(lambda digest: path, RateLimit(20_000), CHUNK)
    request = pb.ReadBlobRequest(digest=bytes(32), length=CHUNK).SerializeToString()
    began_s = time.monotonic()
    for _ in range(3):
        service.read(request)
    assert time.monotonic() - began_s >= 2 * CHUNK / 20_000


@pytest.mark.parametrize("kind", ["mounted", "object store"])
def test_a_repository_gives_manifests_and_blobs_wherever_it_is(tmp_path: Path, kind: str) -> None:
    manifest = write_package(tmp_path, "ranker", 3, {"users": [CONTENT, b"x" * len(CONTENT), CONTENT]})
    origin = open_origin(str(tmp_path) if kind == "mounted" else f"file://{tmp_path}")
    assert isinstance(origin, Mounted if kind == "mounted" else ObjectStore)
    assert origin.read_manifest("ranker", 3) == manifest
    assert _read_all(origin.read, 1000) == CONTENT
    with pytest.raises(NotFoundError, match=r"ranker.* version 4: no package in .*"):
        origin.read_manifest("ranker", 4)
    with pytest.raises(NotFoundError, match="0" * 64):
        origin.read("0" * 64, 0, 10)
    path = tmp_path / "packages" / "ranker" / "3" / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(DataLossError, match=r"manifest\.json"):
        origin.read_manifest("ranker", 3)
    for name in ("../x", "a/b"):
        with pytest.raises(InvalidArgumentError):
            origin.read_manifest(name, 3)


def test_a_link_out_of_a_mounted_repository_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.write_bytes(CONTENT)
    link = Repository(root).blob_path(DIGEST)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(PermissionDeniedError):
        open_origin(str(root)).read(DIGEST, 0, 10)


def test_urls_are_told_from_directories_and_unknown_kinds_are_named() -> None:
    assert [is_url(text) for text in ("s3://b/m", "memory://x", "/models", "models", "C:/x")] == [True, True, False] + [
        False
    ] * 2
    with pytest.raises(InvalidArgumentError, match="--repository nothing://x"):
        open_origin("nothing://x")


def test_an_object_store_that_fails_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = ObjectStore("memory://models")

    class Broken:
        def cat_file(self, *arguments: object, **more: object) -> bytes:
            raise RuntimeError("403 from somewhere")

    monkeypatch.setattr(origin, "_files", Broken())
    for call in (lambda: origin.read(DIGEST, 0, 1), lambda: origin.read_manifest("m", 1)):
        with pytest.raises(TesseraError, match="RuntimeError: 403 from somewhere") as caught:
            call()
        assert isinstance(caught.value, UnavailableError)
