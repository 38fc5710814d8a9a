"""How the native server ends: drain, stop, and interpreters that forget both."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from cpp_ext import _rpc
from support.rpc_calls import HoldingHandler, MakeServer, call, connected, outcome, start, wait_until
from tessera.errors import Code

pytestmark = pytest.mark.native

METHOD = "/test.Service/Do"


def echo(request: bytes) -> bytes:
    return request


def test_drain_lets_calls_in_flight_end_and_refuses_new_ones(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server()
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


def test_drain_cuts_off_what_does_not_end_in_time_and_says_so(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server()
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


def test_drain_says_so_too_when_a_handler_ends_its_cut_off_call_only_later(
    make_server: MakeServer, handler: HoldingHandler
) -> None:
    server = make_server()
    server.serve_native(METHOD, handler.capsule)
    with connected(server.start()) as channel:
        future = start(channel, METHOD)
        held = handler.next()
        ender = threading.Timer(1.0, lambda: held.finish(0, b"too late"))
        ender.start()
        assert server.drain(0.1) is False
        assert outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED)
        ender.join()


def test_stop_waits_for_a_handler_that_ends_its_call_late(make_server: MakeServer, handler: HoldingHandler) -> None:
    server = make_server()
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
