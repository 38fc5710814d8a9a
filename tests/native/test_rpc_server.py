"""The native server: codes, limits, drain, exit, over real connections with gRPC's own Python client."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cpp_ext import _rpc
from support.rpc_calls import HoldingHandler, Outcome, call, connected, outcome, start
from tessera.errors import (
    Code,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    TesseraError,
    UnavailableError,
    error_class,
)

pytestmark = pytest.mark.native

METHOD = "/test.Service/Do"
MakeServer = Callable[..., _rpc.Server]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Make servers on a free port; they are stopped when the test ends."""
    servers: list[_rpc.Server] = []

    def make(**settings: Any) -> _rpc.Server:
        every: dict[str, Any] = {"address": "127.0.0.1:0", "pollers": 1} | settings
        servers.append(_rpc.Server(**every))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def echo(request: bytes) -> bytes:
    return request


def settled(server: _rpc.Server) -> dict[str, int]:
    """Return the counters once nothing is in flight any more."""
    wait_until(lambda: server.stats()["calls_in_flight"] == 0)
    return server.stats()


# --- Methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [code for code in Code if code not in (Code.OK,)])
def test_an_error_of_a_python_method_keeps_its_code_and_text(make_server: MakeServer, code: Code) -> None:
    def fail(request: bytes) -> bytes:
        raise error_class(code)(f"field é: got {request.decode()}")

    server = make_server()
    server.serve_python(METHOD, fail)
    with connected(server.start()) as channel:
        assert call(channel, METHOD, b"7") == Outcome(code, "field é: got 7")
    assert settled(server)["calls_failed"] == 1


def test_an_unexpected_exception_is_internal_and_the_next_call_is_served(make_server: MakeServer) -> None:
    def sometimes(request: bytes) -> bytes:
        return {b"good": b"answer"}[request]

    server = make_server()
    server.serve_python(METHOD, sometimes)
    with connected(server.start()) as channel:
        failed = call(channel, METHOD, b"bad")
        assert failed.code == Code.INTERNAL
        assert "KeyError" in failed.message
        assert call(channel, METHOD, b"good").response == b"answer"


def test_a_python_method_that_returns_no_bytes_is_internal(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, lambda _: 5)  # type: ignore[arg-type, return-value]
    with connected(server.start()) as channel:
        assert call(channel, METHOD) == Outcome(Code.INTERNAL, "the handler did not return bytes")


def test_a_method_that_is_not_served_is_unimplemented(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        assert call(channel, "/test.Service/Other").code == Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["", "Do", "/Do", "test.Service/Do"])
def test_a_method_name_that_grpc_cannot_have_is_refused(make_server: MakeServer, method: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"expected /package\.Service/Method"):
        make_server().serve_python(method, echo)


def test_methods_must_be_added_before_the_start(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, echo)
    server.start()
    with pytest.raises(FailedPreconditionError, match="the server has started"):
        server.serve_python("/test.Service/Late", echo)
    with pytest.raises(FailedPreconditionError, match="started already"):
        server.start()


def test_a_capsule_of_another_kind_is_no_handler(make_server: MakeServer) -> None:
    fanout = _rpc.Fanout()
    with pytest.raises(InvalidArgumentError, match=r"tessera\.handler"):
        make_server().serve_native(METHOD, fanout.capsule())
    fanout.stop()


@pytest.mark.parametrize("pollers", [1, 3])
def test_many_calls_at_once_get_their_own_answers(make_server: MakeServer, pollers: int) -> None:
    server = make_server(pollers=pollers)
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        for _ in range(10):
            calls = [(str(i).encode() * i, start(channel, METHOD, str(i).encode() * i)) for i in range(50)]
            assert all(outcome(future).response == sent for sent, future in calls)
    assert settled(server) == {
        "calls_started": 500,
        "calls_finished": 500,
        "calls_in_flight": 0,
        "calls_failed": 0,
        "calls_refused": 0,
    }


def test_a_full_queue_of_python_calls_is_resource_exhausted(make_server: MakeServer) -> None:
    release, entered = threading.Event(), threading.Event()

    def block(request: bytes) -> bytes:
        entered.set()
        assert release.wait(30)
        return request

    server = make_server()
    server.serve_python(METHOD, block)
    with connected(server.start()) as channel:
        first = start(channel, METHOD)
        assert entered.wait(10)
        queued = [start(channel, METHOD) for _ in range(64)]
        wait_until(lambda: server.stats()["calls_in_flight"] == 65)
        refused = call(channel, METHOD)
        assert refused.code == Code.RESOURCE_EXHAUSTED
        assert "the limit is 64" in refused.message
        release.set()
        assert {outcome(future).code for future in [first, *queued]} == {Code.OK}


def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(make_server: MakeServer) -> None:
    release, entered, seen = threading.Event(), threading.Event(), []

    def block(request: bytes) -> bytes:
        seen.append(request)
        entered.set()
        assert release.wait(30)
        return b""

    server = make_server()
    server.serve_python(METHOD, block)
    with connected(server.start()) as channel:
        first = start(channel, METHOD, b"first")
        assert entered.wait(10)
        late = call(channel, METHOD, b"late", timeout_s=0.1)
        assert late.code == Code.DEADLINE_EXCEEDED
        release.set()
        assert outcome(first).code == Code.OK
        settled(server)
        assert call(channel, METHOD, b"last").code == Code.OK
    assert seen == [b"first", b"last"]


# --- Native handlers --------------------------------------------------------------------------------------------


def test_a_native_handler_may_end_its_calls_later_in_any_order(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        futures = {body: start(channel, METHOD, body) for body in (b"a", b"b", b"c")}
        held = {one.request: one for one in (handler.next() for _ in futures)}
        for body in (b"c", b"a", b"b"):
            held[body].finish(0, body * 3)
            assert outcome(futures[body]).response == body * 3
        assert not any(one.cancelled.is_set() for one in held.values())


def test_calls_above_the_limit_are_refused_and_counted(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server(max_concurrent_calls=2)
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        futures = [start(channel, METHOD) for _ in range(2)]
        held = [handler.next() for _ in futures]
        refused = call(channel, METHOD)
        assert refused.code == Code.RESOURCE_EXHAUSTED
        assert "the limit is 2" in refused.message
        for one in held:
            one.finish(0, b"")
        assert [outcome(future).code for future in futures] == [Code.OK, Code.OK]
        after = start(channel, METHOD)
        handler.next().finish(0, b"")
        assert outcome(after).code == Code.OK
    stats = settled(server)
    assert (stats["calls_refused"], stats["calls_failed"], stats["calls_finished"]) == (1, 1, 4)


def test_a_client_that_goes_away_cancels_its_call(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        assert not held.cancelled.is_set()
        future.cancel()
        assert held.cancelled.wait(10)
        held.finish(int(Code.CANCELLED), b"gone")
        settled(server)


def test_the_deadline_reaches_the_handler_and_cancels_the_call(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server(default_deadline_s=7.0)
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD, timeout_s=0.5)
        held = handler.next()
        assert 0 < held.deadline_ns - time.monotonic_ns() <= 0.5e9
        assert held.cancelled.wait(10)
        held.finish(int(Code.DEADLINE_EXCEEDED), b"late")
        assert outcome(future).code == Code.DEADLINE_EXCEEDED

        future = start(channel, METHOD, timeout_s=None)
        held = handler.next()
        assert 5e9 < held.deadline_ns - time.monotonic_ns() <= 7e9
        held.finish(0, b"")
        assert outcome(future).code == Code.OK


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1012 + "...TRUNCATED"),
        # Not inside the two bytes of an é.
        ("x" + "é" * 1000, "x" + "é" * 505 + "...TRUNCATED"),
    ],
)
def test_a_long_status_message_is_cut_between_characters(make_server: MakeServer, text: str, received: str) -> None:
    def fail(_: bytes) -> bytes:
        raise NotFoundError(text)

    server = make_server()
    server.serve_python(METHOD, fail)
    with connected(server.start()) as channel:
        assert call(channel, METHOD) == Outcome(Code.NOT_FOUND, received)


# --- Messages ---------------------------------------------------------------------------------------------------


def test_messages_above_the_limit_are_resource_exhausted_in_both_directions(make_server: MakeServer) -> None:
    server = make_server(max_message_bytes=64 << 10)
    server.serve_python(METHOD, lambda request: b"x" * int(request[:10]))
    with connected(server.start()) as channel:
        assert call(channel, METHOD, b"%010d" % (64 << 10)).code == Code.OK
        assert call(channel, METHOD, b"%010d" % ((64 << 10) + 1)).code == Code.RESOURCE_EXHAUSTED
        assert call(channel, METHOD, b"%010d" % 10 + bytes((64 << 10) - 10)).code == Code.OK
        assert call(channel, METHOD, b"%010d" % 10 + bytes((64 << 10) - 9)).code == Code.RESOURCE_EXHAUSTED
        # The connection goes on.
        assert call(channel, METHOD, b"%010d" % 3).response == b"xxx"
    settled(server)


def test_compressed_requests_are_read(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        body = b"the same again and again " * 10000
        assert call(channel, METHOD, body, gzip=True).response == body


def test_a_small_compressed_request_that_grows_above_the_limit_is_refused(make_server: MakeServer) -> None:
    server = make_server(max_message_bytes=64 << 10)
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        assert call(channel, METHOD, bytes(1 << 20), gzip=True).code == Code.RESOURCE_EXHAUSTED


# --- Addresses --------------------------------------------------------------------------------------------------


def test_a_unix_socket_serves(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(address=f"unix:{tmp_path}/socket")
    server.serve_python(METHOD, echo)
    assert server.start() == 0
    with connected(f"unix:{tmp_path}/socket") as channel:
        assert call(channel, METHOD, b"hello").response == b"hello"


def test_a_second_server_on_the_same_port_is_refused(make_server: MakeServer) -> None:
    port = make_server().start()
    address = f"127.0.0.1:{port}"
    with pytest.raises(UnavailableError, match=f"address {address}: cannot be bound"):
        make_server(address=address).start()


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:port", "unix:/no/such/folder/s"])
def test_an_address_that_cannot_be_bound_is_named(make_server: MakeServer, address: str) -> None:
    with pytest.raises(TesseraError) as caught:
        make_server(address=address).start()
    assert caught.value.code in (Code.UNAVAILABLE, Code.INVALID_ARGUMENT)
    assert f"address {address}: " in caught.value.message


def test_half_of_a_tls_pair_is_refused(make_server: MakeServer) -> None:
    with pytest.raises(InvalidArgumentError, match="tls_certificate and tls_private_key"):
        make_server(tls_certificate=b"PEM").start()
    with pytest.raises(InvalidArgumentError, match="tls_client_ca"):
        make_server(tls_client_ca=b"PEM").start()


def test_a_certificate_that_is_no_pem_is_refused(make_server: MakeServer) -> None:
    with pytest.raises(TesseraError) as caught:
        make_server(tls_certificate=b"no", tls_private_key=b"pem").start()
    assert "127.0.0.1:0" in caught.value.message or "tls_certificate" in caught.value.message


# --- The end ----------------------------------------------------------------------------------------------------


def test_drain_lets_calls_in_flight_end_and_refuses_new_ones(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    port = server.start()
    with connected(port) as channel, connected(port) as other:
        future = start(channel, METHOD)
        held = handler.next()
        ended: list[bool] = []
        draining = threading.Thread(target=lambda: ended.append(server.drain(20.0)))
        draining.start()
        wait_until(lambda: call(other, METHOD, timeout_s=1.0).code == Code.UNAVAILABLE)
        assert ended == []
        held.finish(0, b"done")
        assert outcome(future).response == b"done"
        draining.join(10)
        assert ended == [True]
        assert call(channel, METHOD).code == Code.UNAVAILABLE
    assert handler.calls.empty()


def test_drain_cuts_off_what_does_not_end_in_time_and_says_so(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()

        def end() -> None:
            assert held.cancelled.wait(20)
            held.finish(int(Code.CANCELLED), b"")

        ender = threading.Thread(target=end)
        ender.start()
        began_s = time.monotonic()
        assert server.drain(0.2) is False
        assert time.monotonic() - began_s < 10
        assert outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED)
        ender.join(10)


def test_drain_says_so_too_when_a_handler_ends_its_cut_off_call_only_later(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        ender = threading.Timer(1.0, lambda: held.finish(0, b"too late"))
        ender.start()
        assert server.drain(0.1) is False
        assert outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED)
        ender.join()


def test_stop_waits_for_a_handler_that_ends_its_call_late(make_server: MakeServer) -> None:
    handler, server = HoldingHandler(), make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        ended_s: list[float] = []

        def end() -> None:
            ended_s.append(time.monotonic())
            held.finish(0, b"too late")

        ender = threading.Timer(0.5, end)
        ender.start()
        server.stop()
        assert ended_s
        assert ended_s[0] <= time.monotonic()
        assert outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED)
        ender.join()


def test_stop_may_come_twice_after_a_drain_and_without_a_start(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, echo)
    with connected(server.start()) as channel:
        assert call(channel, METHOD).code == Code.OK
        assert server.drain(1.0) is True
        assert server.drain(1.0) is True
        server.stop()
        server.stop()
        assert call(channel, METHOD).code == Code.UNAVAILABLE
    never_started = make_server()
    never_started.stop()
    assert never_started.drain(0.1) is True


def test_stop_ends_queued_python_calls(make_server: MakeServer) -> None:
    entered, release = threading.Event(), threading.Event()

    def block(request: bytes) -> bytes:
        entered.set()
        assert release.wait(30)
        return request

    server = make_server()
    server.serve_python(METHOD, block)
    with connected(server.start()) as channel:
        futures = [start(channel, METHOD) for _ in range(5)]
        assert entered.wait(10)
        wait_until(lambda: server.stats()["calls_in_flight"] == 5)
        threading.Timer(0.3, release.set).start()
        server.stop()
        assert all(outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED) for future in futures)
    assert server.stats()["calls_in_flight"] == 0


EXIT_SCRIPT = """
import sys, threading
from cpp_ext import _rpc
server = _rpc.Server(address="127.0.0.1:0", pollers=2)
entered = threading.Event()
def slow(request):
    entered.set()
    threading.Event().wait(0.5)
    return request
server.serve_python("/test.Service/Do", slow)
store = _rpc.TableStore()
server.serve_tables(store)
fanout = _rpc.Fanout(server)
own = _rpc.Fanout()
print(server.start(), flush=True)
assert entered.wait(20)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(3)", 3), ("del server", 0), ("raise KeyError('end')", 1)]
)
def test_an_interpreter_that_forgets_to_stop_ends_at_once_with_its_own_exit_code(end: str, code: int) -> None:
    script = EXIT_SCRIPT.replace("{end}", end)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stderr
        try:
            port = int(child.stdout.readline())
            with connected(port) as channel:
                futures = [start(channel, METHOD) for _ in range(3)]
                assert child.wait(10) == code, child.stderr.read().decode()
                for future in futures:
                    outcome(future)
        finally:
            child.kill()


def threads_and_files() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_servers_and_fanouts_that_come_and_go_leave_no_thread_and_no_file(make_server: MakeServer) -> None:
    def cycle() -> None:
        server = _rpc.Server(address="127.0.0.1:0", pollers=2)
        server.serve_python(METHOD, echo)
        fanout = _rpc.Fanout(server)
        own = _rpc.Fanout()
        with connected(server.start()) as channel:
            assert call(channel, METHOD, b"x").response == b"x"
        own.stop()
        fanout.stop()
        server.stop()

    for _ in range(3):
        cycle()
    before = threads_and_files()
    for _ in range(25):
        cycle()
    # grpc's Python client ends some of its own threads a little later.
    wait_until(lambda: all(now <= then + 3 for now, then in zip(threads_and_files(), before, strict=True)), 20)


def test_connections_of_strangers_do_not_disturb(make_server: MakeServer) -> None:
    import socket

    server = make_server()
    server.serve_python(METHOD, echo)
    port = server.start()
    with connected(port) as channel:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(junk)
            assert call(channel, METHOD, b"x").response == b"x"
    assert isinstance(channel, grpc.Channel)
