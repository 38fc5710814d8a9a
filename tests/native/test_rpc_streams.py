"""Streams and health of the native server with the clients that others use, and how a server with them ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cpp_ext import _rpc
from router.health_service import SERVICES, HealthService
from support.rpc_calls import HoldingHandler, MakeServer, call, connected, outcome, start, wait_until
from tessera.errors import Code, DeadlineExceededError, FailedPreconditionError, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

METHOD = "/test.Service/Do"
STREAM = "/test.Service/Stream"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def stream(channel: grpc.Channel, requests: Iterator[bytes], timeout_s: float = 20.0) -> Any:
    stub: Any = channel.stream_stream(STREAM)
    return stub(requests, timeout=timeout_s)


@contextmanager
def watching(channel: grpc.Channel, service: str) -> Iterator[Callable[[], int | grpc.StatusCode]]:
    """Watch a service; yields what waits for the next status, or for the code at the end."""
    seen: queue.Queue[int | grpc.StatusCode] = queue.Queue()
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)

    def read() -> None:
        try:
            for response in call:
                seen.put(response.status)
        except grpc.RpcError as error:
            seen.put(error.code())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lambda: seen.get(timeout=10)
    finally:
        call.cancel()
        reader.join(10)


# --- Health -----------------------------------------------------------------------------------------------------


def check(channel: grpc.Channel, service: str) -> int | grpc.StatusCode:
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status
        return status
    except grpc.RpcError as error:
        return error.code()


def test_a_router_is_not_serving_until_it_is_ready_and_no_more_when_it_drains(make_server: MakeServer) -> None:
    health = HealthService()
    server = make_server()
    server.serve_health(health.native)
    with connected(server.start()) as channel:
        assert {service: check(channel, service) for service in SERVICES} == dict.fromkeys(SERVICES, NOT_SERVING)
        assert check(channel, "tensorflow.serving.NoService") == grpc.StatusCode.NOT_FOUND
        health.set_serving(True)
        assert {service: check(channel, service) for service in SERVICES} == dict.fromkeys(SERVICES, SERVING)
        health.set_serving(False)
        assert check(channel, "") == NOT_SERVING
        health.drain()
        health.set_serving(True)
        assert check(channel, "") == NOT_SERVING


def test_watchers_see_every_service_change_alone_and_the_end(make_server: MakeServer) -> None:
    health = _rpc.Health()
    health.set("a", SERVING)
    server = make_server()
    server.serve_health(health)
    with connected(server.start()) as channel, watching(channel, "a") as a, watching(channel, "b") as b:
        assert (a(), b()) == (SERVING, SERVICE_UNKNOWN)
        health.set("b", SERVING)
        assert b() == SERVING
        health.set("a", NOT_SERVING)
        assert a() == NOT_SERVING
        health.set("a", SERVING)
        assert a() == SERVING
        assert server.drain(20.0) is True
        assert [a(), a(), b(), b()] == [NOT_SERVING, grpc.StatusCode.UNAVAILABLE] * 2


def test_a_watcher_that_goes_away_is_forgotten(make_server: MakeServer) -> None:
    health = _rpc.Health()
    server = make_server()
    server.serve_health(health)
    with connected(server.start()) as channel:
        for _ in range(50):
            with watching(channel, "x") as seen:
                assert seen() == SERVICE_UNKNOWN
        wait_until(lambda: server.stats()["calls_finished"] == 50)
        health.set("x", SERVING)
        assert check(channel, "x") == SERVING
    assert server.stats()["calls_failed"] == 0


def test_a_status_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r'status of "x": got 3'):
        _rpc.Health().set("x", SERVICE_UNKNOWN)


def test_check_refuses_what_is_no_request(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_health(_rpc.Health())
    with connected(server.start()) as channel:
        assert call(channel, "/grpc.health.v1.Health/Check", b"\x0a\x7f").code == Code.INVALID_ARGUMENT


# --- Streams that Python answers --------------------------------------------------------------------------------


def test_each_message_gets_one_answer(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python_stream(STREAM, lambda request: request * 2)
    with connected(server.start()) as channel:
        requests = [str(i).encode() for i in range(100)]
        assert list(stream(channel, iter(requests))) == [request * 2 for request in requests]
        assert list(stream(channel, iter([]))) == []


def test_an_error_ends_a_stream_with_its_code(make_server: MakeServer) -> None:
    def answer(request: bytes) -> bytes:
        if request == b"bad":
            raise NotFoundError("no such thing")
        return request

    server = make_server()
    server.serve_python_stream(STREAM, answer)
    with connected(server.start()) as channel:
        responses = stream(channel, iter([b"good", b"bad", b"good"]))
        assert next(responses) == b"good"
        with pytest.raises(grpc.RpcError) as caught:
            next(responses)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")


def test_streams_above_the_limit_are_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python_stream(STREAM, lambda request: request)
    ended = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"x"
        ended.wait(30)

    with connected(server.start()) as channel:
        streams = [stream(channel, endless()) for _ in range(128)]
        try:
            assert [next(one) for one in streams] == [b"x"] * 128
            with pytest.raises(grpc.RpcError) as caught:
                next(stream(channel, iter([b"x"])))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "the limit is 128" in (caught.value.details() or "")
            assert server.drain(20.0) is True  # open streams do not hold it up
        finally:
            ended.set()


def test_a_method_that_blocks_does_not_hold_up_others_with_a_thread_of_its_own(make_server: MakeServer) -> None:
    release = threading.Event()

    def slow(request: bytes) -> bytes:
        assert release.wait(30)
        return request

    server = make_server()
    server.serve_python("/test.Service/Slow", slow, own_thread=True)
    server.serve_python(METHOD, lambda request: request)
    with connected(server.start()) as channel:
        future = start(channel, "/test.Service/Slow", b"slow")
        assert call(channel, METHOD, b"quick").response == b"quick"
        release.set()
        assert outcome(future).response == b"slow"


def test_a_method_twice_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.serve_python(METHOD, lambda request: request)
    with pytest.raises(FailedPreconditionError, match=f"method {METHOD}: is answered already"):
        server.serve_python_stream(METHOD, lambda request: request)


# --- Ends -------------------------------------------------------------------------------------------------------


def test_a_stop_is_bounded_and_names_what_has_not_ended(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        futures = [start(channel, METHOD) for _ in range(2)]
        held = [handler.next() for _ in futures]
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=f"have not ended calls that were cancelled: 2 of {METHOD}"):
            server.stop(0.3)
        assert 0.25 < time.monotonic() - began_s < 10
        assert all(outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED) for future in futures)
        for one in held:
            one.finish(0, b"late")
        server.stop(10.0)


def test_a_stop_is_bounded_when_python_does_not_return(make_server: MakeServer) -> None:
    release, entered = threading.Event(), threading.Event()

    def block(request: bytes) -> bytes:
        entered.set()
        assert release.wait(30)
        return request

    server = make_server()
    server.serve_python_stream(STREAM, block)
    with connected(server.start()) as channel, ThreadPoolExecutor(1) as pool:
        responses = pool.submit(lambda: list(stream(channel, iter([b"x"]))))
        assert entered.wait(10)
        with pytest.raises(DeadlineExceededError, match="a Python method has not returned"):
            server.stop(0.2)
        with pytest.raises(grpc.RpcError):
            responses.result(10)
        release.set()
        server.stop(10.0)
