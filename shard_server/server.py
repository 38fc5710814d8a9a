"""Wires one shard server together: native server, holdings, the view of the cluster, registration, drain."""

from __future__ import annotations

import asyncio
import logging
import textwrap
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from cpp_ext import _rpc
from cpp_ext.server import make_server
from placement.keys import Keys
from placement.membership import Registration
from placement.reconcile import Reconciler
from placement.records import MemberRecord, MemberState, Placement
from placement.store import Store
from placement.view import ClusterSnapshot, ClusterView
from shard_server.desired import DesiredPackage, PackageKey, check_room, desired_packages, released
from shard_server.holdings import Holdings
from shard_server.memory import machine_memory_bytes
from shard_server.settings import ShardServerSettings
from tessera.errors import TesseraError
from tessera.process_settings import with_port
from tessera.repository import Repository
from tessera.settings import format_bytes

_log = logging.getLogger("shard_server.server")


MAX_ERROR_CHARS = 500


class ShardServer:
    """A shard server in this process; several may live in one. Used on one event loop."""

    def __init__(self, settings: ShardServerSettings, store: Store) -> None:
        """`store` is the control plane; the caller closes it."""
        self._settings = settings
        self._keys = Keys(settings.cluster)
        self._tables = _rpc.TableStore()
        self._server = make_server(settings.listen, settings)
        self._server.serve_tables(self._tables)
        self._holdings = Holdings(
            Repository(settings.repository),
            self._tables,
            verify_content=settings.verify_blobs == "content",
            populate=settings.populate,
        )
        self._store = store
        self._view = ClusterView(store, self._keys)
        self._registration: Registration | None = None
        self._reconciler: Reconciler | None = None
        self._capacity_bytes = 0
        self._released: dict[str, int] = {}
        self.address = ""

    async def start(self) -> None:
        """Bind, register, and begin to hold what the placements give this server; waits for a store that is silent.

        Raises:
            UnavailableError: the address cannot be bound.
            FailedPreconditionError: another process has this server's id.
        """
        settings = self._settings
        port = self._server.start()
        self.address = settings.advertise or with_port(settings.listen, port)
        limit_bytes = settings.memory_limit_bytes or machine_memory_bytes()
        record = MemberRecord(
            instance=str(uuid.uuid4()),
            address=self.address,
            build=version("tessera-serving"),
            state=MemberState.STARTING,
            domain=settings.domain or settings.server_id,
            capacity_bytes=settings.capacity_bytes or limit_bytes * 3 // 4,
            bytes_used=0,
        )
        self._capacity_bytes = record.capacity_bytes
        self._registration = Registration(self._store, self._keys.member(settings.server_id), record)
        # Without the store nobody could know what this server is to hold.
        await self._registration.start_when_reachable()
        self._view.start()
        self._reconciler = Reconciler(self._view, self._apply, on_failure=self._tell)
        self._reconciler.start()
        _log.info("server %s: listening on %s", settings.server_id, self.address)

    async def _apply(self, snapshot: ClusterSnapshot) -> bool:
        """Hold what `snapshot` asks for, then say so; return False if saying so has to be tried again.

        Raises:
            TesseraError: a package cannot be read, verified or mapped; what was held before still serves.
        """
        for view in snapshot.models.values():
            if view.placement is not None:  # first, so that whoever asks for what is dropped below is sent on
                self._tables.set_placement(
                    model=view.placement.model, epoch=view.placement.epoch, document=view.placement.to_bytes()
                )
        await asyncio.to_thread(self._hold, snapshot)
        assert self._registration is not None
        complete = True
        for view in snapshot.models.values():
            for target in view.staged:
                if self._settings.server_id in target.servers:
                    held_bytes = _bytes_of(self._holdings.packages, target)
                    complete &= await self._registration.report_ready(
                        self._keys, target, view.operation_version, held_bytes
                    )
        await self._update_record(
            state=MemberState.SERVING,
            bytes_used=self._holdings.bytes_mapped,
            epochs={name: view.placement.epoch for name, view in snapshot.models.items() if view.placement is not None},
            error="",
            released=self._released | released(snapshot),
        )
        self._released |= released(snapshot)
        return complete

    async def _tell(self, problem: str) -> None:
        """Put `problem` into this server's record, where whoever waits for this server reads it."""
        await self._update_record(error=textwrap.shorten(problem, MAX_ERROR_CHARS, placeholder=" …"))

    async def _update_record(self, **changes: Any) -> None:
        """Write the member record with `changes`, if they change it."""
        assert self._registration is not None
        assert isinstance(self._registration.record, MemberRecord)
        record = replace(self._registration.record, **changes)
        if record != self._registration.record:
            await self._registration.update(record)

    def _hold(self, snapshot: ClusterSnapshot) -> None:
        """Read the manifests and blobs that `snapshot` asks for; runs on a helper thread.

        What cannot be staged for a target does not keep what is current from being held.
        """
        views = snapshot.models.values()
        try:
            self._hold_placements([placement for view in views for placement in view.held])
        except TesseraError:
            if any(view.staged for view in views):
                self._hold_placements([p for view in views for p in view.held if p not in view.staged])
            raise

    def _hold_placements(self, placements: list[Placement]) -> None:
        desired = desired_packages(placements, self._settings.server_id, self._holdings.manifest)
        if desired == self._holdings.packages:
            return
        check_room(desired, self._holdings.packages, self._capacity_bytes)
        self._holdings.apply(desired)
        _log.info("holding %s", format_bytes(self._holdings.bytes_mapped))

    async def drain(self) -> None:
        """Refuse new lookups, let those in progress end within `drain_timeout_s`, leave the cluster, stop."""
        if self._reconciler is not None:
            await self._reconciler.stop()
        self._tables.set_draining(True)
        if self._registration is not None:
            await self._update_record(state=MemberState.DRAINING)
        await self._view.stop()
        if not await asyncio.to_thread(self._server.drain, self._settings.drain_timeout_s):
            _log.warning("lookups were cut off after --drain-timeout-s=%g", self._settings.drain_timeout_s)
        if self._registration is not None:
            await self._registration.stop()
        await asyncio.to_thread(self._server.stop)


def _bytes_of(packages: Mapping[PackageKey, DesiredPackage], placement: Placement) -> int:
    """Return the bytes of the distinct blobs that are held for the versions of `placement`."""
    blobs: dict[str, int] = {}
    for reference in placement.versions:
        package = packages.get(PackageKey(placement.model, reference.version, reference.digest))
        if package is not None:
            blobs |= package.blobs()
    return sum(blobs.values())
