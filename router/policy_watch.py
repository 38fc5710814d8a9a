"""Follows a policy file: reads it again while the router serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from batching.policy_file import PolicyFile
from placement.tasks import end
from router.batch_policies import PolicySource
from tessera.errors import TesseraError

_log = logging.getLogger("router.policy_watch")

POLL_S = 1.0
"""A change is taken after two polls that agree, hence within 2 s."""


class PolicyWatch:
    """Reads `source` on a helper thread and applies what changed on the event loop; a wrong file changes nothing."""

    def __init__(
        self, source: PolicySource, apply: Callable[[PolicyFile], Sequence[str]], *, poll_s: float = POLL_S
    ) -> None:
        """`apply` returns what changed, one line each; it may raise TesseraError and has changed nothing then."""
        self._source, self._apply, self._poll_s = source, apply, poll_s
        self._at_once = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="router.policy_watch")

    def read_now(self) -> None:
        """Read the file at once, whether it has changed or not; on the event loop."""
        self._at_once.set()

    async def stop(self) -> None:
        """Follow it no longer. May be called twice."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), self._poll_s)
            at_once = self._at_once.is_set()
            self._at_once.clear()
            try:
                policies = await asyncio.to_thread(self._source.poll, at_once=at_once)
                if policies is not None:
                    self._tell(self._apply(policies))
            except TesseraError as error:
                _log.error("%s; the policies stay as they were", error.message)

    def _tell(self, changes: Sequence[str]) -> None:
        for change in changes:
            _log.info("%s", change)
        _log.info("%s: read again, policies that changed: %d", self._source.name, len(changes))
