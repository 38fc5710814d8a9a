"""Between an event loop and the native engine: hands requests in, wakes whoever waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from router.rest.bodies import Receive
from router.rest.responses import error_body
from router.rest.routes import InferRoute
from tessera.errors import Code

_SWEEP_S = 0.1
# The native deadline is a net below the one that is kept here, whose text TensorFlow Serving's clients know.
_NATIVE_GRACE_S = 1.0
_TIMED_OUT = error_body("Timed out waiting for notification")

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, bytes]
"""A status code and a JSON body."""


class Engine(Protocol):
    """The part of `cpp_ext._graph.Rest` that is used here."""

    def start(
        self,
        method: str,
        model: str,
        version: int | None,
        label: str | None,
        body: bytes,
        headers: Headers,
        timeout_s: float,
    ) -> int | Answer:
        """Begin a request; return its answer if it has come, else a token."""

    def cancel(self, token: int) -> None:
        """Ask for an early end."""

    def take(self) -> list[tuple[int, int, bytes]]:
        """Return (token, status code, JSON) of what has ended since the last call."""

    def fileno(self) -> int:
        """Return what is readable while `take` has something."""


@dataclass(slots=True)
class _Waiting:
    future: asyncio.Future[Answer]
    receive: Receive
    since_s: float
    watcher: asyncio.Task[None] | None = field(default=None)


class Dispatcher:
    """Used on one event loop, between `attach` and `detach`.

    Requests that the engine answers at once cost no task switch. For the others a sweep ten times a second ends those
    that take longer than `timeout_s`, and looks whether their clients are still there.
    """

    def __init__(self, engine: Engine, timeout_s: float, clock: Callable[[], float] | None = None) -> None:
        """`clock` (seconds) is for tests; without one it is the loop's."""
        self._engine = engine
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}  # the oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def attach(self) -> None:
        """Begin to take answers, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._engine.fileno(), self.take)

    def detach(self) -> None:
        """Take no more answers; whoever still waits gets none."""
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def run(self, route: InferRoute, body: bytes, headers: Headers, receive: Receive) -> Answer:
        """Return the engine's answer; DEADLINE_EXCEEDED or CANCELLED if it does not come, or nobody waits for it."""
        started = self._engine.start(
            route.method, route.model, route.version, route.label, body, headers, self._timeout_s + _NATIVE_GRACE_S
        )
        if not isinstance(started, int):
            return started
        assert self._loop is not None, "attach() comes first"
        waiting = _Waiting(self._loop.create_future(), receive, self._now_s())
        self._waiting[started] = waiting
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep_again)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._engine.cancel(started)
            raise
        finally:
            self._waiting.pop(started, None)
            if waiting.watcher is not None:
                waiting.watcher.cancel()

    def take(self) -> None:
        """Pass on the answers that have come."""
        for token, code, body in self._engine.take():
            waiting = self._waiting.get(token)
            if waiting is not None:
                _end(waiting, (code, body))

    def sweep(self) -> None:
        """End what is late, and begin to watch the clients of what is not quick."""
        now_s = self._now_s()
        for token, waiting in self._waiting.items():
            if now_s - waiting.since_s >= self._timeout_s:
                self._engine.cancel(token)
                _end(waiting, (Code.DEADLINE_EXCEEDED, _TIMED_OUT))
            elif waiting.watcher is None and now_s - waiting.since_s >= _SWEEP_S:
                waiting.watcher = asyncio.ensure_future(self._watch(token, waiting))

    def _sweep_again(self) -> None:
        self.sweep()
        assert self._loop is not None
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep_again) if self._waiting else None

    async def _watch(self, token: int, waiting: _Waiting) -> None:
        message = await waiting.receive()
        while message["type"] != "http.disconnect":
            message = await waiting.receive()
        self._engine.cancel(token)
        _end(waiting, (Code.CANCELLED, error_body("the client has gone")))

    def _now_s(self) -> float:
        assert self._loop is not None, "attach() comes first"
        return self._clock() if self._clock is not None else self._loop.time()


def _end(waiting: _Waiting, answer: Answer) -> None:
    if not waiting.future.done():
        waiting.future.set_result(answer)
