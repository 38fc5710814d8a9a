"""Follows --model-config-file: what it says is served, what is wrong with it is told once and changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from placement.tasks import end
from router.lifecycle.config import ServerConfig
from tessera.errors import InvalidArgumentError, TesseraError

_log = logging.getLogger("router.config_watch")

SETTLE_S = 0.3
"""A change is taken when two looks this far apart agree: a file may be seen while it is written."""


class ConfigWatch:
    """Reads on helper threads and applies on the event loop, one at a time, until `stop`.

    A configuration that is right but cannot be served (a new model does not load, say) is tried again; the same error
    is told once.
    """

    def __init__(
        self,
        read: Callable[[], ServerConfig],
        apply: Callable[[ServerConfig], Awaitable[None]],
        current: ServerConfig,
        *,
        poll_s: float,
        retry_s: float,
        settle_s: float = SETTLE_S,
    ) -> None:
        """Both functions raise TesseraError; `current` is what is served now."""
        self._read, self._apply = read, apply
        self._handled: ServerConfig | str = current
        self._poll_s, self._retry_s, self._settle_s = poll_s, retry_s, settle_s
        self._retry_at: float | None = None
        self._told = ""
        self._task = asyncio.create_task(self._run(), name="router.config_watch")

    async def stop(self) -> None:
        """Follow it no longer. May be called twice."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            found = await asyncio.to_thread(self._look)
            is_due = self._retry_at is not None and asyncio.get_running_loop().time() >= self._retry_at
            if found == self._handled and not is_due:
                continue
            await asyncio.sleep(self._settle_s)
            if found == await asyncio.to_thread(self._look):
                await self._take(found)

    def _look(self) -> ServerConfig | str:
        """Return the configuration, or what is wrong with it."""
        try:
            return self._read()
        except TesseraError as error:
            return getattr(error, "detail", "") or error.message

    async def _take(self, found: ServerConfig | str) -> None:
        self._handled, self._retry_at = found, None
        if isinstance(found, str):
            self._tell(found)
            return
        try:
            await self._apply(found)
            self._told = ""
        except TesseraError as error:
            self._tell(error.message)
            if not isinstance(error, InvalidArgumentError):
                self._retry_at = asyncio.get_running_loop().time() + self._retry_s

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            _log.error("--model-config-file: %s; what is served stays as it was", problem)
        self._told = problem
