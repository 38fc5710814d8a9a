"""A TCP proxy that breaks what passes through it: late, slow, cut, frozen or half-open connections. Needs no rights."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 64 << 10
_CHUNKS = 256
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class _Faults:
    """What is broken now; answers are what flows to those who connect.

    Attributes:
        delay_s: each piece of an answer comes this much later.
        bytes_per_s: answers of one connection come no faster; 0: no limit.
        cut: whoever connects is cut off at once.
        half_open: whoever connects reaches nobody, and is not told.
    """

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    cut: bool = False
    half_open: bool = False


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and passes on to `target` until told otherwise; a context manager.

    Its faults are set by methods, on any thread; each has happened when the method returns. `heal` ends them all.

    Args:
        target: host:port, or unix:path; may be set later.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self.address = ""
        self.connections = 0
        self._faults = _Faults()
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._on_loop(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_loop(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT_S)
        self._loop.close()

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def delay(self, seconds: float) -> None:
        """Let answers come `seconds` later; they stay in order, and pass one after the other."""
        self._change(lambda: self._set(replace(self._faults, delay_s=seconds)))

    def throttle(self, bytes_per_s: float) -> None:
        """Let the answers of each connection come no faster than this."""
        self._change(lambda: self._set(replace(self._faults, bytes_per_s=bytes_per_s)))

    def cut(self) -> None:
        """Reset every connection, and whoever connects from now on."""
        self._change(self._cut)

    def freeze(self) -> None:
        """Pass nothing on: what comes waits, connections stay open. `heal` lets it go on, as after lost packets."""
        self._change(self._freeze)

    def half_open(self) -> None:
        """Cut off the target, and leave those who are connected, or connect, without a word; `heal` resets them."""
        self._change(self._half_open)

    def drop(self) -> None:
        """Reset every connection; whoever connects again is served."""
        self._change(self._reset_all)

    def heal(self) -> None:
        """End all faults."""
        self._change(self._heal)

    def _set(self, faults: _Faults) -> None:
        self._faults = faults

    def _cut(self) -> None:
        self._set(_Faults(cut=True))
        self._reset_all()

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    def _freeze(self) -> None:
        self._flowing.clear()

    def _half_open(self) -> None:
        self._set(_Faults(half_open=True))
        for link in list(self._links):
            link.lose_target()

    def _heal(self) -> None:
        self._set(_Faults())
        for link in list(self._links):
            if link.lost:
                link.reset()
        self._flowing.set()

    def _change(self, apply: Callable[[], None]) -> None:
        async def change() -> None:
            apply()

        self._on_loop(change)

    def _on_loop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_START_TIMEOUT_S)

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _end(self) -> None:
        self._server.close()
        self._reset_all()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(writer)
        self._links.add(link)
        whole = False
        try:
            if self._faults.half_open:
                link.lose_target()
            elif not self._faults.cut:
                whole = await self._pass_on(link, reader)
            if link.lost:
                await link.ended.wait()
        finally:
            if link.lost or not whole:
                link.reset()
            self._links.discard(link)

    async def _pass_on(self, link: _Link, reader: asyncio.StreamReader) -> bool:
        """Return whether the connection ended as those who made it wanted."""
        try:
            if self.target.startswith("unix:"):
                target_reader, link.target = await asyncio.open_unix_connection(self.target.removeprefix("unix:"))
            else:
                host, _, port = self.target.rpartition(":")
                target_reader, link.target = await asyncio.open_connection(host, int(port))
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, link.target))
                both.create_task(self._answers(target_reader, link))
        except* OSError:  # the target is not there, or one of both ends has gone: so is this connection
            pass
        else:
            return True
        return False

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        """Pass answers on, each when it is due: reading goes on meanwhile, so that a delay slows nothing else."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)

        async def write() -> None:
            while True:
                due_s, chunk = await waiting.get()
                if not chunk:
                    return
                await asyncio.sleep(due_s - self._loop.time())
                await self._flowing.wait()
                link.client.write(chunk)
                await link.client.drain()
                if self._faults.bytes_per_s:
                    await asyncio.sleep(len(chunk) / self._faults.bytes_per_s)

        async with asyncio.TaskGroup() as both:
            both.create_task(write())
            chunk = b"?"
            while chunk:
                chunk = await reader.read(_CHUNK_BYTES)
                await waiting.put((self._loop.time() + self._faults.delay_s, chunk))
        if not link.lost:
            link.client.close()


class _Link:
    """One connection: who connected, and who was reached for it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.target: asyncio.StreamWriter | None = None
        self.lost = False
        self.ended = asyncio.Event()

    def reset(self) -> None:
        """Cut both ends off."""
        if not self.client.transport.is_closing():
            connection = self.client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.transport.abort()
        if self.target is not None:
            self.target.transport.abort()
        self.ended.set()

    def lose_target(self) -> None:
        """Cut off the target alone."""
        self.lost = True
        if self.target is not None:
            self.target.transport.abort()
