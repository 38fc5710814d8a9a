"""Brings a process to the state that the cluster's records ask for, and keeps it there.

Runs on the event loop that called `start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from placement.tasks import end
from placement.view import ClusterSnapshot, ClusterView
from tessera.errors import TesseraError

_log = logging.getLogger("placement.reconcile")

RETRY_DELAYS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses between attempts to do what could not be done; the last one repeats."""


class Reconciler:
    """Calls `apply` with the newest snapshot, after each change, and again after a pause when not all could be done.

    Args:
        view: what to follow.
        apply: does what the snapshot asks for, as far as it is not done yet; returns whether all is done. One call
            at a time. An error is logged and counts as not done: nothing ends the following of the cluster.
        on_failure: is told, in a sentence, why `apply` raised.
        retry_delays_s: see `RETRY_DELAYS_S`.
    """

    def __init__(
        self,
        view: ClusterView,
        apply: Callable[[ClusterSnapshot], Awaitable[bool]],
        *,
        on_failure: Callable[[str], Awaitable[None]] | None = None,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        self._view, self._apply, self._on_failure = view, apply, on_failure
        self._retry_delays_s = retry_delays_s
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the snapshot that is there; returns at once. REQUIRED: a running event loop, not started yet."""
        assert self._task is None
        self._view.subscribe(lambda _: self._changed.set())
        self._changed.set()
        self._task = asyncio.create_task(self._run(), name="placement.reconcile")

    def again(self) -> None:
        """Call `apply` once more soon, with the newest snapshot; on the event loop."""
        self._changed.set()

    async def stop(self) -> None:
        """End it; work that `apply` has on other threads goes on to its end. May be called twice."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        failures = 0
        while True:
            delay_s = self._retry_delays_s[min(failures, len(self._retry_delays_s)) - 1] if failures else None
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._changed.wait()
            self._changed.clear()
            failures = 0 if await self._attempt() else failures + 1

    async def _attempt(self) -> bool:
        try:
            return await self._apply(self._view.snapshot)
        except TesseraError as error:
            problem = error.message
            _log.error("cannot do what the placement asks: %s", problem)
        except Exception:  # noqa: BLE001 (a bug must not end the following of the cluster)
            problem = "an internal error; its log has it"
            _log.exception("doing what the placement asks failed")
        if self._on_failure is not None:
            await self._on_failure(problem)
        return False
