"""The native server: codes, limits, drain, exit, over real connections with gRPC's own Python client."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import pytest

from cpp_ext import _rpc
from support.rpc_calls import (
    HoldingHandler,
    MakeServer,
    Outcome,
    SlowHandler,
    call,
    connected,
    outcome,
    start,
    wait_until,
)
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


def test_a_native_handler_may_end_its_calls_later_in_any_order(
    make_server: MakeServer, handler: HoldingHandler
) -> None:
    server = make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        futures = {body: start(channel, METHOD, body) for body in (b"a", b"b", b"c")}
        held = {one.request: one for one in (handler.next() for _ in futures)}
        for body in (b"c", b"a", b"b"):
            held[body].finish(0, body * 3)
            assert outcome(futures[body]).response == body * 3
        assert not any(one.cancelled.is_set() for one in held.values())


def test_calls_above_the_limit_are_refused_and_counted(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server(max_concurrent_calls=2)
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        futures = [start(channel, METHOD) for _ in range(2)]
        held = [handler.next() for _ in futures]
        refused = call(channel, METHOD)
        assert refused.code == Code.RESOURCE_EXHAUSTED
        assert "the limit is 2" in refused.message
        told = start(channel, METHOD)
        assert int(dict(told.trailing_metadata())["grpc-retry-pushback-ms"]) >= 10
        for one in held:
            one.finish(0, b"")
        assert [outcome(future).code for future in futures] == [Code.OK, Code.OK]
        after = start(channel, METHOD)
        handler.next().finish(0, b"")
        assert outcome(after).code == Code.OK
    stats = settled(server)
    assert (stats["calls_refused"], stats["calls_failed"], stats["calls_finished"]) == (2, 2, 5)


def test_health_is_answered_whatever_the_load(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server(max_concurrent_calls=1)
    server.serve_native(METHOD, handler.capsule)
    health = _rpc.Health()
    health.set("", 1)
    server.serve_health(health)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        assert call(channel, METHOD).code == Code.RESOURCE_EXHAUSTED
        assert call(channel, "/grpc.health.v1.Health/Check").code == Code.OK
        held.finish(0, b"")
        assert outcome(future).code == Code.OK


def test_what_came_while_a_call_took_long_is_answered_in_turn(make_server: MakeServer) -> None:
    """One poller; a handler that takes long holds it up, and what came meanwhile waits with its time noted."""
    server = make_server(pollers=1)
    handler = SlowHandler(0.003)
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        for _ in range(5):
            futures = [(bytes([i]), start(channel, METHOD, bytes([i]))) for i in range(40)]
            assert [outcome(future) for _, future in futures] == [Outcome(Code.OK, "", sent) for sent, _ in futures]
    assert settled(server)["calls_refused"] == 0


def test_a_client_that_goes_away_cancels_its_call(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        assert not held.cancelled.is_set()
        future.cancel()
        assert held.cancelled.wait(10)
        held.finish(int(Code.CANCELLED), b"gone")
        settled(server)


def test_the_deadline_reaches_the_handler_and_cancels_the_call(
    make_server: MakeServer, handler: HoldingHandler
) -> None:
    server = make_server(default_deadline_s=7.0)
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD, timeout_s=0.5)
        held = handler.next()
        assert 0 < held.deadline_ns - time.monotonic_ns() <= 0.51e9  # gRPC rounds up to milliseconds
        assert held.cancelled.wait(10)
        held.finish(int(Code.DEADLINE_EXCEEDED), b"late")
        assert outcome(future).code == Code.DEADLINE_EXCEEDED

        future = start(channel, METHOD, timeout_s=None)
        held = handler.next()
        assert 5e9 < held.deadline_ns - time.monotonic_ns() <= 7.01e9
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
