"""A router in a cluster: it follows the placement, registers itself, and keeps what it saw last on disk."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from placement.disk_cache import DiskCache
from placement.keys import Keys
from placement.lease_trust import Advice, LeaseTrust
from placement.membership import Registration
from placement.reconcile import Reconciler
from placement.records import RouterRecord
from placement.store import Store
from placement.tasks import end
from placement.view import ClusterSnapshot, ClusterView, ViewReading
from router.heard import POLL_S, newer_placements, with_heard
from router.peer_refresh import PeerRefresh
from router.pinned_epochs import EpochReporter
from router.settings import RouterSettings
from router.statistics import LeaseStatistics
from tessera.clock import SystemClock
from tessera.errors import DataLossError, DeadlineExceededError, UnavailableError

_log = logging.getLogger("router.cluster")


class Served(Protocol):
    """What a router does with the placement; `router.models.Models` is it."""

    async def reconcile(self, snapshot: ClusterSnapshot) -> bool:
        """Make what `snapshot` says current; return whether all of it could be loaded."""

    async def prepare(self, snapshot: ClusterSnapshot) -> Mapping[str, int]:
        """Load what its targets name; return model → epoch of those that need no more loading."""

    def oldest_epochs(self) -> Mapping[str, int]:
        """Return model → oldest epoch of a route that a request may still hold."""

    def told_placements(self) -> Mapping[str, bytes]:
        """Return model → the newest placement document that a shard server sent with a refusal."""

    def placements_told(self) -> int:
        """Return how often what `told_placements` returns has changed; cheap."""

    def avoid(self, servers: frozenset[str]) -> None:
        """From now on ask these shard servers only where no other has the rows."""


class ClusterMember:
    """From `start` to `stop`, which may be called once each; on one event loop. Serving does not depend on etcd."""

    def __init__(self, settings: RouterSettings, store: Store, served: Served) -> None:
        """`served` is what serves the placement."""
        self._settings = settings
        self._store = store
        self._served = served
        self._epochs: EpochReporter | None = None
        self._keys = Keys(settings.cluster)
        self._cache: DiskCache | None = None
        if settings.state_dir:
            self._cache = DiskCache(Path(settings.state_dir) / f"{settings.cluster}.snapshot", self._keys)
        self._view: ClusterView | None = None
        self._registration: Registration | None = None
        self._registering: asyncio.Task[None] | None = None
        self._reconciler: Reconciler | None = None
        self._told: dict[str, bytes] = {}
        self._times_told = 0
        self._clock = SystemClock()
        self._trust = LeaseTrust()
        self._judged: ClusterSnapshot | None = None
        self._advice = Advice()
        self._listener: asyncio.Task[None] | None = None
        self._peers: PeerRefresh | None = None
        self._problem = "the placement has not been read yet"

    @property
    def missing(self) -> list[str]:
        """What keeps the router from serving all that the cluster says is current; empty when nothing does."""
        return [f"cluster {self._settings.cluster}: {self._problem}"] if self._problem else []

    def read_view(self) -> ViewReading | None:
        """Return what is known of the cluster; None before `start`. From any thread."""
        return self._view.read() if self._view is not None else None

    async def start(self, address: str) -> None:
        """Follow the cluster, as a router that is reached at `address`.

        Raises:
            TesseraError: the id is taken.
        """
        settings = self._settings
        self._view = ClusterView(self._store, self._keys, initial=self._last_snapshot())
        self._view.start()
        self._peers = PeerRefresh(self._view, self._keys, settings)
        self._peers.start()
        router_id = settings.router_id or f"{socket.gethostname()}-{address.rpartition(':')[2]}"
        record = RouterRecord(str(uuid.uuid4()), settings.advertised(address))
        self._registration = Registration(
            self._store, self._keys.router(router_id), record, known_key=self._keys.known_router(router_id)
        )
        self._epochs = EpochReporter(self._registration, self._served.oldest_epochs)
        try:
            await self._registration.start()
        except (UnavailableError, DeadlineExceededError) as error:
            _log.warning("not registered yet: %s", error.message)
            later = self._registration.start_when_reachable()
            self._registering = asyncio.create_task(later, name="router.register")
        self._reconciler = Reconciler(self._view, self._apply)
        self._reconciler.start()
        self._listener = asyncio.create_task(self._listen(), name="router.heard")

    async def stop(self) -> None:
        """Leave the cluster; what is served goes on."""
        if self._peers is not None:
            await self._peers.stop()
        if self._listener is not None:
            await end(self._listener)
        if self._reconciler is not None:
            await self._reconciler.stop()
        if self._registering is not None:
            self._registering.cancel()
        if self._epochs is not None:
            await self._epochs.stop()
        if self._registration is not None:
            await self._registration.stop()
        if self._view is not None:
            await self._view.stop()

    @property
    def leases(self) -> LeaseStatistics:
        """How often leases were not believed, and for which models they are not now; from any thread."""
        return LeaseStatistics(self._trust.panics, self._advice.panicking)

    async def _listen(self) -> None:
        """Take up what servers tell of newer placements, and what records tell of servers."""
        assert self._reconciler is not None
        while True:
            await asyncio.sleep(POLL_S)
            self._judge_servers()
            # The store may not be heard of, or be late.
            if (times := self._served.placements_told()) != self._times_told:
                self._times_told, self._told = times, dict(self._served.told_placements())
                self._reconciler.again()

    def _judge_servers(self) -> None:
        assert self._view is not None
        snapshot = self._view.snapshot
        if snapshot is self._judged and self._advice.settled:
            return
        before, self._judged = self._advice, snapshot
        self._advice = self._trust.judge(snapshot, self._clock.monotonic_s(), self._view.status.connected_for_s)
        if self._advice.avoided != before.avoided:
            _log.info("servers asked last: %s", ", ".join(sorted(self._advice.avoided)) or "none")
            self._served.avoid(self._advice.avoided)

    def _last_snapshot(self) -> ClusterSnapshot | None:
        """Return what the last run of this router kept on disk, if it is whole."""
        try:
            return self._cache.load() if self._cache is not None else None
        except DataLossError as error:
            _log.error("going on without the last placement: %s", error.message)
            return None

    async def _apply(self, snapshot: ClusterSnapshot) -> bool:
        """Serve what `snapshot` says is current, and keep it on disk; return whether all could be loaded."""
        assert self._epochs is not None
        snapshot, known = with_heard(snapshot, newer_placements(snapshot, self._told)), snapshot
        complete = await self._served.reconcile(snapshot)
        assert self._view is not None
        if snapshot.models or self._view.status.connected:  # else nobody has said anything yet
            self._problem = "" if complete else "not everything in the placement could be loaded"
        await self._epochs.applied(snapshot, {})
        if self._cache is not None and self._view.status.connected:
            try:
                await asyncio.to_thread(self._cache.save, known)
            except UnavailableError as error:
                _log.error("%s", error.message)
        if targets := sum(len(view.staged) for view in snapshot.models.values()):
            prepared = await self._served.prepare(snapshot)
            await self._epochs.applied(snapshot, prepared)
            complete &= len(prepared) == targets
        return complete
