"""Unary calls of raw bytes, and a native handler that tests steer: both ends of `cpp_ext._rpc.Server`."""

from __future__ import annotations

import ctypes
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from cpp_ext import _rpc
from support import fake_abi
from tessera.errors import Code

MakeServer = Callable[..., _rpc.Server]
"""See the fixture `make_server` of tests/native: a server on a free port, with some settings changed."""


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until `condition` holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: Code
    message: str = ""
    response: bytes = b""


@contextmanager
def connected(
    address: str | int, *, credentials: grpc.ChannelCredentials | None = None, options: Sequence[tuple[str, Any]] = ()
) -> Iterator[grpc.Channel]:
    """A connection of its own to `address`, or to a port of 127.0.0.1."""
    target = f"127.0.0.1:{address}" if isinstance(address, int) else address
    every = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *options]
    if credentials is None:
        channel = grpc.insecure_channel(target, every)
    else:
        channel = grpc.secure_channel(target, credentials, every)
    with channel:
        yield channel


def start(
    channel: grpc.Channel, method: str, request: bytes = b"", *, timeout_s: float | None = 10.0, gzip: bool = False
) -> Any:
    """Start a call; return grpc's future."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return stub.future(request, timeout=timeout_s, compression=grpc.Compression.Gzip if gzip else None)


def outcome(future: Any) -> Outcome:
    """Wait for the end of a call (at most 30 s)."""
    try:
        return Outcome(Code.OK, response=future.result(timeout=30))
    except grpc.FutureCancelledError:
        return Outcome(Code.CANCELLED)
    except grpc.RpcError as error:
        return Outcome(Code(error.code().value[0]), error.details() or "")


def call(channel: grpc.Channel, method: str, request: bytes = b"", **settings: Any) -> Outcome:
    """Make a call; see `start`."""
    return outcome(start(channel, method, request, **settings))


@dataclass
class HeldCall:
    """A call that a `HoldingHandler` has taken and not ended yet."""

    request: bytes
    deadline_ns: int
    cancelled: threading.Event
    finish: Callable[[int, bytes], None]


@dataclass
class HoldingHandler:
    """A native handler that keeps every call until the test ends it.

    The server must stop before this is dropped, and waits for calls that were not ended: hence `close` before it.
    """

    calls: queue.Queue[HeldCall] = field(default_factory=queue.Queue)
    _open: dict[int, HeldCall] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False
    _keep: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._handle = fake_abi._Handle(self._take)
        self._handler = fake_abi._Handler(fake_abi.ABI_VERSION, None, self._handle)
        self.capsule = fake_abi._capsule_new(ctypes.addressof(self._handler), b"tessera.handler", None)

    def next(self) -> HeldCall:
        """Return the next call that came, waiting for it."""
        return self.calls.get(timeout=10)

    def close(self) -> None:
        """End what the test left open, and from now on every call at once."""
        with self._lock:
            self._closed = True
            left = list(self._open.values())
        for held in left:
            held.finish(int(Code.ABORTED), b"the test is over")

    def _take(self, _: int, api_pointer: Any, call: int) -> None:
        api = api_pointer.contents
        number = next(self._numbers)
        size = ctypes.c_size_t()
        begin = api.request(call, ctypes.byref(size))
        cancelled = threading.Event()
        on_cancel = fake_abi._OnCancel(lambda _: cancelled.set())
        self._keep.append(on_cancel)

        def finish(code: int, content: bytes) -> None:
            """End the call with a response (code 0, copied by the server) or a status message; the first counts."""
            with self._lock:
                if self._open.pop(number, None) is None:
                    return
            text, response = (None, content) if code == 0 else (content, None)
            buffers = [ctypes.create_string_buffer(part, len(part)) for part in (text, response) if part]
            address = ctypes.addressof(buffers[0]) if buffers else None
            size = len(content)
            no_free = fake_abi._Free()
            if code == 0:
                api.finish(call, 0, None, 0, address, size, no_free, None)
            else:
                api.finish(call, code, address, size, None, 0, no_free, None)

        held = HeldCall(ctypes.string_at(begin, size.value), api.deadline_ns(call), cancelled, finish)
        with self._lock:
            self._open[number] = held
            closed = self._closed
        api.notify_on_cancel(call, on_cancel, None)
        if closed:
            held.finish(int(Code.ABORTED), b"the test is over")
        else:
            self.calls.put(held)


class SlowHandler:
    """A native handler that keeps its poller for `take_s`, and answers with the request."""

    def __init__(self, take_s: float) -> None:
        self._take_s = take_s
        self._handle = fake_abi._Handle(self._answer)
        self._handler = fake_abi._Handler(fake_abi.ABI_VERSION, None, self._handle)
        self.capsule = fake_abi._capsule_new(ctypes.addressof(self._handler), b"tessera.handler", None)
        self._keep: list[Any] = []

    def _answer(self, _: int, api_pointer: Any, call: int) -> None:
        api = api_pointer.contents
        size = ctypes.c_size_t()
        request = ctypes.string_at(api.request(call, ctypes.byref(size)), size.value)
        time.sleep(self._take_s)
        buffer = ctypes.create_string_buffer(request, len(request))
        self._keep.append(buffer)  # until the server is gone
        api.finish(call, 0, None, 0, ctypes.addressof(buffer), len(request), fake_abi._Free(), None)
