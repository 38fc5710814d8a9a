"""Wires one shard server together: native server, holdings, the view of the cluster, registration, drain."""

from __future__ import annotations

import asyncio
import logging
import textwrap
import uuid
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cpp_ext import _rpc
from cpp_ext.server import make_server, show_certificates
from placement.keys import Keys
from placement.membership import Registration
from placement.peers import GET_PLACEMENT
from placement.reconcile import Reconciler
from placement.records import MemberRecord, MemberState
from placement.store import Store
from placement.tasks import end
from placement.view import ClusterSnapshot, ClusterView
from shard_server.desired import released
from shard_server.last_lookups import answer_last_lookups
from shard_server.memory import blob_share
from shard_server.open_holder import open_holder
from shard_server.placement_service import PlacementService
from shard_server.readiness import missing
from shard_server.scrubber import Scrubber
from shard_server.settings import ShardServerSettings
from shard_server.staging.peers import READ_BLOB
from shard_server.staging.rate_limit import RateLimit
from shard_server.staging.service import CHUNK_BYTES, BlobService
from shard_server.statistics import ShardServerStatistics, bucket_counts
from tessera.certificates import Certificates, follow_certificates, validity
from tessera.clock import SystemClock
from tessera.memory import machine_memory_bytes, memory_limit_bytes
from tessera.monitoring import metrics_text, open_monitoring
from tessera.process_settings import with_port

if TYPE_CHECKING:
    from tessera.monitoring import Collect
    from tessera.monitoring_port import MonitoringPort

_log = logging.getLogger("shard_server.server")

_BUILD = version("tessera-serving")

MAX_ERROR_CHARS = 500

PROGRESS_S = 2.0
"""How often progress of staging is told; less often where so many servers tell theirs that etcd would feel it."""
_PROGRESS_S_PER_MEMBER = 0.02

_SCRUB_STOP_S = 5.0


class ShardServer:
    """A shard server in this process; several may live in one. Used on one event loop."""

    def __init__(self, settings: ShardServerSettings, store: Store) -> None:
        """`store` is the control plane; the caller closes it."""
        self._settings = settings
        self._keys = Keys(settings.cluster)
        self._tables = _rpc.TableStore()
        self._certificates = settings.certificates()
        self._server = make_server(settings.listen, settings, self._certificates)
        self._server.serve_tables(self._tables)
        self._memory_limit_bytes = memory_limit_bytes()
        limit_bytes = settings.memory_limit_bytes or machine_memory_bytes()
        self._capacity_bytes: int = settings.capacity_bytes or blob_share(limit_bytes)
        if settings.blob_dir_bytes:
            self._capacity_bytes = min(self._capacity_bytes, settings.blob_dir_bytes)
        self._holder = open_holder(settings, self._tables, self._capacity_bytes, self._again)
        self._scrubber = Scrubber(self._holder, settings.scrub_interval_s, self._again)
        blobs = BlobService(
            self._holder.path_of,
            RateLimit(settings.staging_bytes_per_s),
            min(CHUNK_BYTES, settings.max_message_bytes),
        )
        self._server.serve_python(READ_BLOB, blobs.read, own_thread=True)
        self._store = store
        self._view = ClusterView(store, self._keys)
        view = self._view  # not `self`: the native server holds the service
        service = PlacementService(lambda: view.snapshot, self._keys, settings.server_id, SystemClock())
        self._server.serve_python(GET_PLACEMENT, service.get_placement)
        self._certificate_watch: asyncio.Task[None] | None = None
        self._registration: Registration | None = None
        self._reconciler: Reconciler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._teller: asyncio.Task[None] | None = None
        self._released: dict[str, int] = {}
        self._draining = False
        self._problem = ""
        self._failures = 0
        self._monitoring: MonitoringPort | None = None
        self._generations: dict[str, int] = {}
        self.address = ""

    def _again(self) -> None:
        """Look at the newest snapshot once more; on any thread."""
        if self._loop is not None and self._reconciler is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is held any more
                self._loop.call_soon_threadsafe(self._reconciler.again)

    @property
    def metrics_address(self) -> str:
        """Where Prometheus and probes ask; empty without --metrics-port."""
        return self._monitoring.address if self._monitoring is not None else ""

    @property
    def missing(self) -> list[str]:
        """What keeps this server from being ready; may be read on any thread."""
        return missing(
            self._view.snapshot,
            self._settings.server_id,
            self._holder.served,
            draining=self._draining,
            problem=self._problem,
        )

    async def start(self) -> None:
        """Bind, register, and begin to hold what the placements give this server; waits for a store that is silent.

        Raises:
            UnavailableError: the address cannot be bound.
            FailedPreconditionError: another process has this server's id.
        """
        settings = self._settings
        self._monitoring = open_monitoring(  # before the store is waited for: /healthz is for that time, too
            settings, settings.listen, metrics=metrics_text(self._collect), missing=lambda: self.missing
        )
        port = self._server.start()
        self.address = settings.advertise or with_port(settings.listen, port)
        self._loop = asyncio.get_running_loop()
        self._certificate_watch = asyncio.create_task(
            follow_certificates(
                settings.certificates,
                self._show,
                self._certificates,
                poll_s=settings.tls_poll_s,
            ),
            name="shard_server.certificates",
        )
        record = MemberRecord(
            instance=str(uuid.uuid4()),
            address=self.address,
            build=_BUILD,
            state=MemberState.STARTING,
            domain=settings.domain or settings.server_id,
            capacity_bytes=self._capacity_bytes,
            bytes_used=0,
        )
        self._registration = Registration(self._store, self._keys.member(settings.server_id), record)
        # Without the store nobody could know what this server is to hold.
        await self._registration.start_when_reachable()
        self._view.start()
        self._reconciler = Reconciler(self._view, self._apply, on_failure=self._tell)
        self._reconciler.start()
        if settings.scrub_interval_s:
            self._scrubber.start()
        self._teller = asyncio.create_task(self._tell_progress(), name="shard_server.progress")
        _log.info("server %s: listening on %s", settings.server_id, self.address)

    def _show(self, certificates: Certificates) -> None:
        show_certificates(self._server, certificates)
        self._certificates = certificates

    def _collect(self) -> Collect:
        from shard_server.metrics import ShardServerCollector  # here: for the import time of Prometheus' library

        return ShardServerCollector(self._statistics, _BUILD).collect

    def _statistics(self) -> ShardServerStatistics:
        """Return the counters of this moment; on any thread."""
        return ShardServerStatistics(
            tables=self._tables.stats(),
            calls=self._server.stats(),
            buckets=bucket_counts(self._holder.holdings.packages),
            held_bytes=self._holder.holdings.bytes_mapped,
            capacity_bytes=self._capacity_bytes,
            is_ready=not self.missing,
            failures=self._failures,
            view=self._view.read(),
            staging=self._holder.progress(),
            staged=self._holder.counts(),
            scrub=self._scrubber.counts,
            memory_limit_bytes=self._memory_limit_bytes,
            certificate=validity(self._certificates.certificate),
        )

    async def _apply(self, snapshot: ClusterSnapshot) -> bool:
        """Hold what `snapshot` asks for, then say so; return False if saying so has to be tried again.

        Raises:
            TesseraError: a package cannot be read, verified or mapped; what was held before still serves.
        """
        self._forget_other_generations(snapshot)
        for view in snapshot.models.values():
            if view.placement is not None:  # first, so that whoever asks for what is dropped below is sent on
                self._tables.set_placement(
                    model=view.placement.model, epoch=view.placement.epoch, document=view.placement.to_bytes()
                )
        held = await asyncio.to_thread(self._holder.hold, snapshot)
        self._problem = held.problem
        assert self._registration is not None
        complete = True
        for view in snapshot.models.values():
            for target in view.staged:
                if self._settings.server_id in target.servers and held.has(target):
                    held_bytes = self._holder.holdings.bytes_of(target)
                    complete &= await self._registration.report_ready(
                        self._keys, target, view.operation_version, held_bytes
                    )
        assert isinstance(self._registration.record, MemberRecord)
        before = self._registration.record
        whole = {name: view for name, view in snapshot.models.items() if held.has_current(view)}
        self._released |= {name: version for name, version in released(snapshot).items() if name in whole}
        epochs = {name: epoch for name, epoch in before.epochs.items() if name in snapshot.models}
        await self._update_record(
            # Until everything is there for the first time, nobody counts on this server.
            state=MemberState.SERVING if whole.keys() == snapshot.models.keys() else before.state,
            bytes_used=self._holder.holdings.bytes_mapped,
            epochs=epochs | {name: view.epoch for name, view in whole.items() if view.epoch},
            error=_short(held.problem),
            released=dict(self._released),
            staging=self._holder.progress(),
        )
        return complete

    def _forget_other_generations(self, snapshot: ClusterSnapshot) -> None:
        """Take back what was said of a store that is gone: the versions of another one begin anew."""
        for name, view in snapshot.models.items():
            if view.current is not None and self._generations.get(name) != view.current.generation:
                self._generations[name] = view.current.generation
                self._released.pop(name, None)

    async def _tell(self, problem: str) -> None:
        """Put `problem` into this server's record, where whoever waits for this server reads it."""
        self._problem, self._failures = problem, self._failures + 1
        await self._update_record(error=_short(problem))

    async def _tell_progress(self) -> None:
        """Put into this server's record, now and then, how far it is with fetching blobs."""
        while True:
            await asyncio.sleep(max(PROGRESS_S, _PROGRESS_S_PER_MEMBER * len(self._view.snapshot.members)))
            await self._update_record(staging=self._holder.progress())

    async def _update_record(self, **changes: Any) -> None:
        """Write the member record with `changes`, if they change it."""
        assert self._registration is not None
        assert isinstance(self._registration.record, MemberRecord)
        record = replace(self._registration.record, **changes)
        if record != self._registration.record:
            await self._registration.update(record)

    async def drain(self) -> None:
        """Send routers elsewhere, then refuse new lookups, let those in progress end, leave the cluster, stop."""
        self._draining = True
        if self._teller is not None:
            await end(self._teller)
        if self._certificate_watch is not None:
            await end(self._certificate_watch)
        if self._reconciler is not None:
            await self._reconciler.stop()
        if self._registration is not None:
            await self._update_record(state=MemberState.DRAINING)
            await answer_last_lookups(self._server, self._view.snapshot, self._settings)
        self._tables.set_draining(True)
        await self._view.stop()
        await asyncio.to_thread(self._scrubber.stop, _SCRUB_STOP_S)
        await asyncio.to_thread(self._holder.stop)
        if not await asyncio.to_thread(self._server.drain, self._settings.drain_timeout_s):
            _log.warning("lookups were cut off after --drain-timeout-s=%g", self._settings.drain_timeout_s)
        if self._registration is not None:
            await self._registration.stop()
        if self._monitoring is not None:  # only now: how the drain went is of interest too
            await asyncio.to_thread(self._monitoring.stop)
        await asyncio.to_thread(self._server.stop)


def _short(problem: str) -> str:
    return textwrap.shorten(problem, MAX_ERROR_CHARS, placeholder=" …")
