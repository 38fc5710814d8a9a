"""Asks shard servers for the placement while the store is not heard of: at a cold start, and when it stays away."""

from __future__ import annotations

import asyncio
import logging
import random

from placement.keys import Keys
from placement.peers import ask_peers
from placement.routing_records import merged
from placement.tasks import end
from placement.view import ClusterView
from router.settings import RouterSettings
from tessera.errors import DataLossError

_log = logging.getLogger("router.peer_refresh")

FIRST_S = 1.0
PAUSE_S = 5.0
ASKED_AT_ONCE = 2
"""Servers asked each time; any of them knows what its store said last, and the next time it is others."""


class PeerRefresh:
    """From `start` to `stop`; on one event loop.

    Args:
        view: gets what is heard, and says whether the store is.
        keys: of the cluster.
        settings: name servers to ask, and how TLS to them goes.
        rng: chooses among the servers.
    """

    def __init__(
        self, view: ClusterView, keys: Keys, settings: RouterSettings, *, rng: random.Random | None = None
    ) -> None:
        self._view, self._keys = view, keys
        self._named = settings.placement_peers
        self._tls = settings.shard_tls()
        self._rng = rng or random.Random()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        assert self._task is None
        self._task = asyncio.create_task(self._run(), name="router.peer_refresh")

    async def stop(self) -> None:
        """Ask no more. May be called twice."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            if not self._view.status.connected:
                await self._ask()
            await asyncio.sleep(self._rng.uniform(PAUSE_S / 2, PAUSE_S * 3 / 2))

    async def _ask(self) -> None:
        """Ask some servers and take up what is newer than what is known."""
        known = {member.record.address for member in self._view.snapshot.members.values()}
        addresses = sorted(known | set(self._named))
        asked = self._rng.sample(addresses, min(ASKED_AT_ONCE, len(addresses)))
        found = await ask_peers(self._keys, asked, self._tls)
        try:
            changed = self._view.offer(merged(self._keys, found.records))
        except DataLossError as error:
            _log.error("%s", error.message)
            return
        if changed:
            _log.warning("the store is not heard of; shard servers told of %s", ", ".join(changed))
