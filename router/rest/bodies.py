"""Reads request bodies within limits, and inflates them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tessera.errors import CancelledError, InvalidArgumentError, ResourceExhaustedError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_INFLATE_INLINE_BYTES = 1 << 10  # which is a megabyte at most
_GZIP_OR_ZLIB = 47  # zlib's window bits that tell the two formats apart by themselves


class BodyReader:
    """Reads bodies on one event loop, so that all that are held at once stay below a limit."""

    def __init__(self, max_body_bytes: int, max_buffered_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self.buffered_bytes = 0

    def release(self, size_bytes: int) -> None:
        """Give back what `read` has taken."""
        self.buffered_bytes -= size_bytes

    async def read(self, receive: Receive, *, gzip: bool) -> bytes:
        """Return the whole body, which counts as held until `release(len(body))`.

        Raises:
            InvalidArgumentError: it is too large, or not what `gzip` promises.
            ResourceExhaustedError: too many bodies are held.
            CancelledError: the client went away.
        """
        message = await receive()
        chunks = [_chunk(message)]
        size = len(chunks[0])
        self._take(size)
        taken = size
        try:
            while message.get("more_body", False):
                message = await receive()
                chunk = _chunk(message)
                self._take(len(chunk))
                taken += len(chunk)
                if taken > self._max_body_bytes:
                    raise self._too_large()
                chunks.append(chunk)
            if taken > self._max_body_bytes:
                raise self._too_large()
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if not gzip:
                taken = 0
                return body
            inflated = await self._inflate(body)
            self._take(len(inflated))
            return inflated
        finally:
            self.release(taken)

    def _take(self, size_bytes: int) -> None:
        if self.buffered_bytes + size_bytes > self._max_buffered_bytes:
            raise ResourceExhaustedError(
                f"request body: bodies of {self._max_buffered_bytes} bytes are held, which is the limit; retry later"
            )
        self.buffered_bytes += size_bytes

    async def _inflate(self, body: bytes) -> bytes:
        try:
            if len(body) <= _INFLATE_INLINE_BYTES:
                inflated = inflate(body, self._max_body_bytes)
            else:
                inflated = await asyncio.to_thread(inflate, body, self._max_body_bytes)
        except zlib.error as error:
            raise InvalidArgumentError(f"request body: Content-Encoding says gzip, but: {error}") from error
        if len(inflated) > self._max_body_bytes:
            raise self._too_large()
        return inflated

    def _too_large(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"request body: got more than {self._max_body_bytes} bytes after decompression, which is the limit"
        )


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Return what gzip or zlib data stands for, all members of it; at most one byte more than `max_bytes`.

    Raises:
        zlib.error: it is damaged or cut.
    """
    parts: list[bytes] = []
    left = max_bytes + 1
    while body:
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        part = stream.decompress(body, left)
        parts.append(part)
        left -= len(part)
        if left <= 0:
            break
        if not stream.eof:
            raise zlib.error("the data ends before it is complete")
        body = stream.unused_data
    return b"".join(parts)


def _chunk(message: Mapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise CancelledError("the client has gone")
    chunk: bytes = message.get("body", b"")
    return chunk
