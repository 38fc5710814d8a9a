"""Wires one shard server together: native server, holdings, the view of the cluster, registration, drain."""

from __future__ import annotations

import asyncio
import logging
import textwrap
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from cpp_ext import _rpc
from placement.keys import Keys
from placement.membership import Registration
from placement.records import MemberRecord, MemberState, Placement
from placement.store import Store
from placement.view import ClusterSnapshot, ClusterView
from shard_server.desired import DesiredPackage, PackageKey, desired_packages
from shard_server.holdings import Holdings
from shard_server.memory import machine_memory_bytes
from shard_server.settings import ShardServerSettings
from tessera.errors import DeadlineExceededError, TesseraError, UnavailableError
from tessera.process_settings import with_port
from tessera.repository import Repository
from tessera.settings import format_bytes

_log = logging.getLogger("shard_server.server")

RETRY_DELAYS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses between attempts to do what the placement asks after one failed; the last one repeats."""


REGISTER_RETRY_S = 1.0
MAX_ERROR_CHARS = 500


class ShardServer:
    """A shard server in this process; several may live in one. Used on one event loop."""

    def __init__(self, settings: ShardServerSettings, store: Store) -> None:
        """`store` is the control plane; the caller closes it."""
        self._settings = settings
        self._keys = Keys(settings.cluster)
        self._tables = _rpc.TableStore()
        self._server = _rpc.Server(
            address=settings.listen,
            pollers=settings.pollers,
            max_message_bytes=settings.max_message_bytes,
            max_concurrent_calls=settings.max_in_flight,
            default_deadline_s=settings.default_deadline_s,
            tls_certificate=settings.read_file("tls_cert"),
            tls_private_key=settings.read_file("tls_key"),
            tls_client_ca=settings.read_file("tls_client_ca"),
        )
        self._server.serve_tables(self._tables)
        self._holdings = Holdings(
            Repository(settings.repository),
            self._tables,
            verify_content=settings.verify_blobs == "content",
            populate=settings.populate,
        )
        self._store = store
        self._view = ClusterView(store, self._keys)
        self._changed = asyncio.Event()
        self._registration: Registration | None = None
        self._reconciler: asyncio.Task[None] | None = None
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
        self._registration = Registration(self._store, self._keys.member(settings.server_id), record)
        await self._register(self._registration)
        self._view.subscribe(lambda _: self._changed.set())
        self._view.start()
        self._reconciler = asyncio.create_task(
            self._reconcile_forever(self._registration), name="shard_server.reconcile"
        )
        _log.info("server %s: listening on %s", settings.server_id, self.address)

    async def _register(self, registration: Registration) -> None:
        """Register, as soon as the store answers: without it nobody could know what this server is to hold."""
        while True:
            try:
                return await registration.start()
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("not registered yet: %s", error.message)
                await asyncio.sleep(REGISTER_RETRY_S)

    async def _reconcile_forever(self, registration: Registration) -> None:
        failures = 0
        while True:
            delay_s = RETRY_DELAYS_S[min(failures, len(RETRY_DELAYS_S)) - 1] if failures else None
            try:
                await asyncio.wait_for(self._changed.wait(), delay_s)
            except TimeoutError:
                _log.info("trying again to do what the placement asks")
            self._changed.clear()
            try:
                complete = await self._reconcile(self._view.snapshot, registration)
            except TesseraError as error:
                _log.error("cannot do what the placement asks: %s", error.message)
                complete = False
                await self._tell(registration, error.message)
            except Exception:  # noqa: BLE001 (a bug must not end the following of the cluster)
                _log.exception("doing what the placement asks failed")
                complete = False
                await self._tell(registration, "an internal error; its log has it")
            failures = 0 if complete else failures + 1

    async def _tell(self, registration: Registration, problem: str) -> None:
        """Put `problem` into this server's record, where whoever waits for this server reads it."""
        assert isinstance(registration.record, MemberRecord)
        record = replace(registration.record, error=textwrap.shorten(problem, MAX_ERROR_CHARS, placeholder=" …"))
        if record != registration.record:
            await registration.update(record)

    async def _reconcile(self, snapshot: ClusterSnapshot, registration: Registration) -> bool:
        """Hold what `snapshot` asks for, then say so; return False if saying so has to be tried again.

        Raises:
            TesseraError: a package cannot be read, verified or mapped; what was held before still serves.
        """
        placements = [p for view in snapshot.models.values() for p in (view.placement, view.target) if p is not None]
        await asyncio.to_thread(self._hold, placements)
        for view in snapshot.models.values():
            if view.placement is not None:
                self._tables.set_placement(
                    model=view.placement.model, epoch=view.placement.epoch, document=view.placement.to_bytes()
                )
        complete = True
        for view in snapshot.models.values():
            if view.target is not None and self._settings.server_id in view.target.servers:
                held_bytes = _bytes_of(self._holdings.packages, view.target)
                complete &= await registration.report_ready(self._keys, view.target, view.operation_version, held_bytes)
        assert isinstance(registration.record, MemberRecord)
        record = replace(
            registration.record,
            state=MemberState.SERVING,
            bytes_used=self._holdings.bytes_mapped,
            epochs={placement.model: placement.epoch for placement in placements},
            error="",
        )
        if record != registration.record:
            await registration.update(record)
        return complete

    def _hold(self, placements: list[Placement]) -> None:
        """Read the manifests and blobs that `placements` ask for; runs on a helper thread."""
        desired = desired_packages(placements, self._settings.server_id, self._holdings.manifest)
        if desired != self._holdings.packages:
            self._holdings.apply(desired)
            _log.info("holding %s", format_bytes(self._holdings.bytes_mapped))

    async def drain(self) -> None:
        """Refuse new lookups, let those in progress end within `drain_timeout_s`, leave the cluster, stop."""
        if self._reconciler is not None:
            self._reconciler.cancel()
        self._tables.set_draining(True)
        if self._registration is not None:
            assert isinstance(self._registration.record, MemberRecord)
            await self._registration.update(replace(self._registration.record, state=MemberState.DRAINING))
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
