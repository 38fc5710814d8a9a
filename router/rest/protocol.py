"""Connections of the REST port: uvicorn's, with bounds on request heads, on slow clients, and on their number."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_PROGRESS_BYTES = 64 << 10
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Sub-classes made by `bounded` have the limits."""

    max_connections: int
    max_header_bytes: int

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._in_head = False
        self._head_bytes = 0
        self._ended_one = False  # a request, with the data that came last
        self._moved_bytes = 0
        self._stalled_at_bytes = 0
        self._stalled_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or end it at once when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; the head of a request may have `max_header_bytes`."""
        size = len(data)
        self._moved_bytes += size
        self._ended_one = False
        super().data_received(data)
        if self._in_head:
            # Data that ended a request before is mostly not of this head.
            self._head_bytes += 0 if self._ended_one else size
            if self._head_bytes > self.max_header_bytes and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that what follows is another request."""
        self._ended_one = True
        super().on_message_complete()

    def is_stalled(self, passed_s: float, limit_s: float) -> bool:
        """Return whether it has been the client's turn for `limit_s` in which it moved next to nothing.

        To be called every `passed_s`. Between two requests it is nobody's turn: the keep-alive timeout ends that.
        """
        sending = self.flow.write_paused
        receiving = self._in_head or self.cycle is None or self.cycle.more_body
        if not (sending or receiving):
            self._stalled_s = 0.0
            return False
        moved = self._moved_bytes - (self.transport.get_write_buffer_size() if sending else 0)
        if abs(moved - self._stalled_at_bytes) >= _PROGRESS_BYTES:
            self._stalled_s = 0.0
            self._stalled_at_bytes = moved
        else:
            self._stalled_s += passed_s
        return self._stalled_s >= limit_s


def bounded(max_connections: int, max_header_bytes: int) -> type[BoundedProtocol]:
    """Return the protocol with these limits; uvicorn takes a class and gives it no arguments of ours."""

    class _Bounded(BoundedProtocol):
        pass

    _Bounded.max_connections = max_connections
    _Bounded.max_header_bytes = max_header_bytes
    return _Bounded
