"""Calls an ASGI application without a server, and a native engine that tests drive by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from router.rest.dispatcher import Answer, Headers


@dataclass
class Reply:
    """What an application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def call(
    app: Any,
    verb: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    leaves: bool = False,
) -> Reply:
    """Send one request, its body in as many parts as given; with `leaves` the client goes away after it."""
    parts = [body] if isinstance(body, bytes) else list(body)
    messages = [
        {"type": "http.request", "body": part, "more_body": leaves or i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ]
    reply = Reply()

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.body += message["body"]

    sent = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    raw_path = path.partition("?")[0]
    scope = {"type": "http", "method": verb, "path": unquote(raw_path), "raw_path": raw_path.encode(), "headers": sent}
    await app(scope, receive, send)
    return reply


class HandEngine:
    """An engine whose requests end when a test says so, or at once with `at_once`."""

    def __init__(self, at_once: Answer | None = None) -> None:
        self.at_once = at_once
        self.started: list[tuple[str, str, int | None, str | None, bytes, Headers, float]] = []
        self.cancelled: list[int] = []
        self._answers: list[tuple[int, int, bytes]] = []
        self._read_fd, self._write_fd = os.pipe()

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
        """Note the request; its token is its number, from 1."""
        self.started.append((method, model, version, label, body, headers, timeout_s))
        return self.at_once if self.at_once is not None else len(self.started)

    async def wait_for(self, requests: int) -> None:
        """Let others run until so many have been started."""
        while len(self.started) < requests:  # noqa: ASYNC110  # nothing waits: every round runs whoever is ready
            await asyncio.sleep(0)

    def cancel(self, token: int) -> None:
        """Note it."""
        self.cancelled.append(token)

    def answer(self, token: int, code: int, body: bytes) -> None:
        """End a request."""
        self._answers.append((token, code, body))
        os.write(self._write_fd, b"x")

    def take(self) -> list[tuple[int, int, bytes]]:
        """Return what `answer` was told."""
        os.read(self._read_fd, 4096)
        answers, self._answers = self._answers, []
        return answers

    def fileno(self) -> int:
        """Return the pipe's end."""
        return self._read_fd

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read_fd)
        os.close(self._write_fd)
