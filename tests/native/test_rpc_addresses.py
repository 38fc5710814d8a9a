"""Where the native server listens, with what credentials, and gRPC's own arguments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.etcd_process import Certificates, make_certificates
from support.rpc_calls import HoldingHandler, MakeServer, call, connected, outcome, start
from tessera.errors import Code, FailedPreconditionError, InvalidArgumentError, UnavailableError

pytestmark = pytest.mark.native

METHOD = "/test.Service/Do"


def echo(request: bytes) -> bytes:
    return request


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


def tls(certificates: Certificates, **others: bytes) -> dict[str, bytes]:
    return {
        "tls_certificate": certificates.certificate.read_bytes(),
        "tls_private_key": certificates.key.read_bytes(),
    } | others


def trusting(certificates: Certificates) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificates.ca.read_bytes())


# --- Several addresses ------------------------------------------------------------------------------------------


def test_every_address_answers_and_the_ports_come_in_their_order(make_server: MakeServer, tmp_path: Path) -> None:
    sockets = [f"unix:{tmp_path}/{name}" for name in ("a", "b")]
    server = make_server(addresses=["[::1]:0", sockets[0]], plain_addresses=[sockets[1]])
    server.serve_python(METHOD, echo)
    assert server.ports == []
    assert server.start() == server.ports[0]
    v4, v6, *none = server.ports
    assert none == [0, 0]
    for address in (f"127.0.0.1:{v4}", f"[::1]:{v6}", *sockets):
        with connected(address) as channel:
            assert call(channel, METHOD, b"x").response == b"x"


def test_a_server_may_have_a_socket_alone(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(address="", plain_addresses=[f"unix:{tmp_path}/s"])
    server.serve_python(METHOD, echo)
    assert server.start() == 0
    with connected(f"unix:{tmp_path}/s") as channel:
        assert call(channel, METHOD, b"x").response == b"x"


def test_one_address_that_cannot_be_bound_is_named_and_none_is_served(make_server: MakeServer) -> None:
    taken = make_server()
    taken.serve_python(METHOD, echo)
    port = taken.start()
    server = make_server(addresses=[f"127.0.0.1:{port}"])
    with pytest.raises(UnavailableError, match=f"address 127.0.0.1:{port}: cannot be bound"):
        server.start()
    with connected(port) as channel:
        assert call(channel, METHOD, b"x").response == b"x"


# --- Unix sockets -----------------------------------------------------------------------------------------------

DYING = """
import sys
from cpp_ext import _rpc
server = _rpc.Server(address=sys.argv[1], pollers=1)
server.serve_python("/test.Service/Do", lambda request: request)
server.start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_socket_of_a_killed_process_is_replaced(make_server: MakeServer, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    with subprocess.Popen(
        [sys.executable, "-c", DYING, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        server = make_server(address=address)
        with pytest.raises(UnavailableError, match=f"address {address}: cannot be bound: another process listens"):
            server.start()
        with connected(address) as channel:  # it goes on
            assert call(channel, METHOD, b"x").response == b"x"
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert (tmp_path / "s").is_socket()
    server = make_server(address=address)
    server.serve_python(METHOD, echo)
    server.start()
    with connected(address) as channel:
        assert call(channel, METHOD, b"x").response == b"x"
    server.stop()
    assert not (tmp_path / "s").exists()


def test_a_file_in_the_place_of_the_socket_is_not_removed(make_server: MakeServer, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("important")
    with pytest.raises(UnavailableError, match="the file exists and is not a socket"):
        make_server(address=f"unix:{tmp_path}/s").start()
    assert (tmp_path / "s").read_text() == "important"


def test_a_path_that_is_too_long_for_a_socket_is_refused(make_server: MakeServer) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 107 bytes, got 108"):
        make_server(address="unix:" + "x" * 108).start()


# --- TLS --------------------------------------------------------------------------------------------------------


def test_plain_addresses_are_plain_and_the_others_are_not(
    make_server: MakeServer, tmp_path: Path, ours: Certificates
) -> None:
    path = f"unix:{tmp_path}/s"
    server = make_server(plain_addresses=[path], **tls(ours))
    server.serve_python(METHOD, echo)
    port = server.start()
    with connected(port, credentials=trusting(ours)) as channel:
        assert call(channel, METHOD, b"x").response == b"x"
    with connected(path) as channel:
        assert call(channel, METHOD, b"x").response == b"x"
    with connected(port) as channel:
        assert call(channel, METHOD, b"x", timeout_s=3.0).code == Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("tls_certificate", "tls_certificate: expected certificates in PEM"),
        ("tls_private_key", "tls_private_key: expected a private key without a passphrase in PEM"),
        ("tls_client_ca", "tls_client_ca: expected certificates in PEM"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_pem_text_is_named(
    make_server: MakeServer, ours: Certificates, field: str, expected: str, damage: str
) -> None:
    texts = tls(ours, tls_client_ca=ours.ca.read_bytes())
    good = texts[field]
    texts[field] = {"cut": good[: len(good) // 2], "empty": b"\n", "other": b"\x00\xff" * 50}[damage]
    with pytest.raises(InvalidArgumentError, match=f"^{expected}$"):
        make_server(**texts).start()


def test_the_key_of_another_certificate_is_refused(make_server: MakeServer, ours: Certificates, tmp_path: Path) -> None:
    other = make_certificates(tmp_path)
    with pytest.raises(InvalidArgumentError, match="tls_private_key: is not the key of tls_certificate"):
        make_server(**tls(ours, tls_private_key=other.key.read_bytes())).start()


def test_new_certificates_are_shown_to_new_connections_on_every_address(
    make_server: MakeServer, ours: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    server = make_server(addresses=["127.0.0.1:0"], **tls(ours))
    server.serve_python(METHOD, echo)
    with pytest.raises(FailedPreconditionError, match="certificates: the server has not started yet"):
        server.set_certificates(**tls(other))
    server.start()
    with connected(server.ports[0], credentials=trusting(ours)) as old:
        assert call(old, METHOD, b"x").response == b"x"
        for wrong, error in (
            (tls(other, tls_private_key=ours.key.read_bytes()), InvalidArgumentError),
            (tls(other, tls_client_ca=other.ca.read_bytes()), FailedPreconditionError),
            ({"tls_certificate": b"", "tls_private_key": b""}, FailedPreconditionError),
        ):
            with pytest.raises(error):
                server.set_certificates(**wrong)
        server.set_certificates(**tls(other))
        assert call(old, METHOD, b"y").response == b"y"
    for port in server.ports:
        with connected(port, credentials=trusting(other)) as new:
            assert call(new, METHOD, b"z").response == b"z"
        with connected(port, credentials=trusting(ours)) as refused:
            assert call(refused, METHOD, b"z", timeout_s=3.0).code == Code.UNAVAILABLE


# --- gRPC's arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strikes", "code"), [(1, Code.UNAVAILABLE), (0, Code.OK)], ids=["refused", "permitted"])
def test_clients_ping_as_often_as_the_arguments_allow(
    make_server: MakeServer, handler: HoldingHandler, strikes: int, code: Code
) -> None:
    """Clients ping once a second; a connection whose pings are too many is ended (ENHANCE_YOUR_CALM), 0: never."""
    server = make_server(channel_arguments={"grpc.http2.max_ping_strikes": strikes})
    server.serve_native(METHOD, handler.capsule)
    pings = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_time_between_pings_ms", 50),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    with connected(server.start(), options=pings) as channel:
        future = start(channel, METHOD, timeout_s=20.0)
        held = handler.next()
        held.cancelled.wait(20.0 if code else 5.0)
        held.finish(0, b"")
        assert outcome(future).code == code


def test_the_server_pings_and_ends_connections_as_told(make_server: MakeServer) -> None:
    arguments = {
        "grpc.keepalive_time_ms": 100,
        "grpc.keepalive_timeout_ms": 100,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_sent_ping_interval_without_data_ms": 100,
    }
    server = make_server(channel_arguments=arguments)
    server.serve_python(METHOD, echo)
    port = server.start()
    with socket.create_connection(("127.0.0.1", port)) as silent:  # HTTP/2, but answers no ping
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        silent.settimeout(20)
        while silent.recv(4096):
            pass


def test_metadata_above_the_argument_is_refused(make_server: MakeServer) -> None:
    server = make_server(channel_arguments={"grpc.max_metadata_size": 1000})
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        stub: Any = channel.unary_unary(METHOD)
        assert stub(b"x", metadata=[("k", "v" * 100)], timeout=10) == b"x"
        with pytest.raises(grpc.RpcError) as caught:
            stub(b"x", metadata=[("k", "v" * 3000)], timeout=10)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_arguments_win_over_settings(make_server: MakeServer) -> None:
    server = make_server(max_message_bytes=1 << 20, channel_arguments={"grpc.max_receive_message_length": 100})
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        assert call(channel, METHOD, bytes(100)).code == Code.OK
        assert call(channel, METHOD, bytes(101)).code == Code.RESOURCE_EXHAUSTED


def test_messages_may_be_as_large_as_grpc_can(make_server: MakeServer) -> None:
    server = make_server(max_message_bytes=(1 << 31) - 1)
    server.serve_python(METHOD, echo)
    unlimited = [("grpc.max_receive_message_length", -1)]
    with connected(server.start(), options=unlimited) as channel:
        assert len(call(channel, METHOD, bytes(16 << 20), timeout_s=30).response) == 16 << 20


def test_an_argument_without_a_name_is_refused(make_server: MakeServer) -> None:
    with pytest.raises(InvalidArgumentError, match="channel argument without a name"):
        make_server(channel_arguments={"": 1}).start()


def test_a_message_limit_that_is_none_is_refused(make_server: MakeServer) -> None:
    with pytest.raises(InvalidArgumentError, match="max_message_bytes: got 0"):
        make_server(max_message_bytes=0).start()


def test_starting_twenty_times_leaves_no_socket_open(make_server: MakeServer, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        server = make_server(plain_addresses=[f"unix:{tmp_path}/s"])
        server.serve_python(METHOD, echo)
        server.start()
        server.stop()
    end_s = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before + 10:  # noqa: PTH208
        assert time.monotonic() < end_s
        threading.Event().wait(0.05)
