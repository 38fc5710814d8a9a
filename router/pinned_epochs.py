"""Tells the cluster which placements this router uses, so that servers keep what its requests may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from placement.membership import Registration
from placement.records import RouterRecord
from placement.snapshot import ClusterSnapshot
from placement.tasks import end

_POLL_S = 0.2


def pinned_epochs(current: Mapping[str, int], oldest: Mapping[str, int]) -> dict[str, int]:
    """Return model → oldest epoch that a request uses or may come to use.

    Args:
        current: model → epoch that new requests get.
        oldest: model → oldest epoch that a request still uses; models that none uses may be missing.
    """
    return {model: min(epoch, oldest.get(model, epoch)) for model, epoch in current.items()}


class EpochReporter:
    """Keeps `pinned` and `prepared` of a router's record true. Lives on one event loop.

    Args:
        registration: of the router; written only when something changes.
        oldest_epochs: returns model → oldest epoch of a route that a request may still hold.
        poll_s: how often that is asked while requests on older epochs run.
    """

    def __init__(
        self, registration: Registration, oldest_epochs: Callable[[], Mapping[str, int]], *, poll_s: float = _POLL_S
    ) -> None:
        self._registration, self._oldest_epochs, self._poll_s = registration, oldest_epochs, poll_s
        self._current: dict[str, int] = {}
        self._prepared: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def applied(self, snapshot: ClusterSnapshot, prepared: Mapping[str, int]) -> None:
        """Say that new requests use what is current in `snapshot` from now on, and what is loaded for later.

        Of a model that could not be loaded, the placement before stays in use, which its routes show.

        Args:
            snapshot: that was applied.
            prepared: model → epoch of the target whose graphs are loaded.
        """
        self._current = {name: view.epoch for name, view in snapshot.models.items() if view.epoch}
        for name, epoch in (*self._current.items(), *prepared.items()):
            self._prepared[name] = max(epoch, self._prepared.get(name, 0))
        if await self._report() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._watch(), name="router.pinned_epochs")

    async def stop(self) -> None:
        """Say nothing more. May be called twice."""
        if self._task is not None:
            await end(self._task)

    async def _watch(self) -> None:
        """Follow requests on older epochs until the last has ended."""
        while True:
            await asyncio.sleep(self._poll_s)
            if not await self._report():
                return

    async def _report(self) -> bool:
        """Bring the record up to date; return whether requests on older epochs are left."""
        pinned = pinned_epochs(self._current, self._oldest_epochs())
        record = self._registration.record
        assert isinstance(record, RouterRecord)
        if (dict(record.pinned), dict(record.prepared)) != (pinned, self._prepared):
            await self._registration.update(replace(record, pinned=pinned, prepared=dict(self._prepared)))
        return pinned != self._current
