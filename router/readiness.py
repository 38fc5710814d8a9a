"""One truth about readiness, for the gRPC health service, /readyz and the ready file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from placement.tasks import end

_log = logging.getLogger("router.readiness")

POLL_S = 0.1


class Readiness:
    """Looks at what is missing, and tells those who want to know when that changes. On one event loop.

    `missing` may be read on any thread.
    """

    def __init__(
        self, sources: Sequence[Callable[[], Sequence[str]]], tell: Callable[[bool], None], *, poll_s: float = POLL_S
    ) -> None:
        """A source says what is missing, one short text each; `tell` is called with each change, the first True."""
        self._sources, self._tell, self._poll_s = sources, tell, poll_s
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.missing: tuple[str, ...] = ("the router is starting",)

    def start(self) -> None:
        """Look from now on, at once for the first time."""
        self.look()
        self._task = asyncio.create_task(self._run(), name="router.readiness")

    async def wait(self) -> None:
        """Return once nothing is missing."""
        await self._ready.wait()

    async def stop(self, reason: str) -> None:
        """Not ready from now on, for good. May be called twice, and without `start`."""
        if self._task is not None:
            await end(self._task)
        self._take((reason,))

    def look(self) -> None:
        """Ask all sources now."""
        self._take(tuple(text for source in self._sources for text in source()))

    def _take(self, missing: tuple[str, ...]) -> None:
        was_ready, self.missing = not self.missing, missing
        if was_ready is (not missing):
            return
        if missing:
            _log.warning("not ready: %s", "; ".join(missing))
            self._ready.clear()
        else:
            _log.info("ready")
            self._ready.set()
        self._tell(not missing)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            self.look()
