"""The proxy that other tests break connections with."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from support.fault_proxy import FaultProxy

pytestmark = pytest.mark.integration

TIMEOUT_S = 30.0


@contextlib.contextmanager
def _echo() -> Iterator[str]:
    """A server that sends back what it gets; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while chunk := connection.recv(1 << 16):
                connection.sendall(chunk)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                opened.append(listening.accept()[0])
                threading.Thread(target=answer, args=(opened[-1],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(TIMEOUT_S)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with _echo() as target, FaultProxy(target) as proxy:
        yield proxy


def _connect(proxy: FaultProxy) -> socket.socket:
    host, port = proxy.address.split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def _reach(proxy: FaultProxy) -> bytes:
    """Connect, and wait for the first byte; a reset may come during either."""
    with _connect(proxy) as connection:
        return connection.recv(1)


def _ask(connection: socket.socket, content: bytes = b"hello") -> float:
    """Send `content` and read it back; return the seconds that it took."""
    began_s = time.monotonic()
    connection.sendall(content)
    assert _receive(connection, len(content)) == content
    return time.monotonic() - began_s


def _receive(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        chunk = connection.recv(size - len(content))
        assert chunk, "the connection ended"
        content += chunk
    return content


def _is_silent(connection: socket.socket) -> bool:
    """Whether the connection stays open and says nothing for a while."""
    connection.settimeout(0.3)
    try:
        connection.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        connection.settimeout(TIMEOUT_S)


def test_late_and_slow_answers_come_in_order_and_not_before_their_time(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection, bytes(range(256)) * 1000)
        proxy.delay(0.2)
        assert _ask(connection) >= 0.2
        proxy.heal()
        proxy.throttle(1 << 20)
        assert _ask(connection, bytes(300_000)) >= 0.2  # what came last is not waited for
        assert proxy.connections == proxy.open_connections == 1


def test_cut_connections_are_reset_until_they_are_healed(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionResetError):
        _reach(proxy)
    proxy.heal()
    with _connect(proxy) as again:
        _ask(again)
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            again.recv(1)
    with _connect(proxy) as another:
        _ask(another)


def test_what_was_sent_while_it_was_frozen_arrives_when_it_is_healed(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection)
        proxy.freeze()
        connection.sendall(b"late")
        assert _is_silent(connection)
        with _connect(proxy) as new:
            assert _is_silent(new)
        proxy.heal()
        assert _receive(connection, 4) == b"late"
        _ask(connection)


def test_half_open_connections_are_silent_until_they_are_reset(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection)
        proxy.half_open()
        connection.sendall(b"anybody there")
        assert _is_silent(connection)
        with _connect(proxy) as new:
            assert _is_silent(new)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            _receive(connection, 1)
    with _connect(proxy) as again:
        _ask(again)


def test_whoever_asks_for_a_target_that_is_not_there_is_reset() -> None:
    for target in ("127.0.0.1:1", "unix:/nowhere"):
        with FaultProxy(target) as proxy, pytest.raises(ConnectionResetError):
            _reach(proxy)
