"""Wires one router together: native server, fan-out, models, the view of the cluster, registration, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cpp_ext import _graph, _rpc
from cpp_ext.server import make_server
from placement.disk_cache import DiskCache
from placement.keys import Keys
from placement.membership import Registration
from placement.reconcile import Reconciler
from placement.records import RouterRecord
from placement.store import Store
from placement.view import ClusterSnapshot, ClusterView
from router.batch_policies import BatchPolicies, policy_source
from router.model_service import GET_MODEL_METADATA, GET_MODEL_STATUS, PREDICT, ModelService
from router.models import Models
from router.policy_watch import PolicyWatch
from router.settings import RouterSettings
from router.statistics import StatisticsSource
from router.status_service import GET_STATUS, StatusService
from tessera.clock import SystemClock
from tessera.errors import DataLossError, DeadlineExceededError, SettingsError, UnavailableError
from tessera.process_settings import with_port
from tessera.repository import Repository

if TYPE_CHECKING:
    from router.metrics_server import MetricsServer

_log = logging.getLogger("router.server")

_BUILD = version("tessera-serving")


class Router:
    """A router in this process; several may live in one. Used on one event loop."""

    def __init__(self, settings: RouterSettings, store: Store | None) -> None:
        """`store` is the control plane; None serves plain SavedModels only. The caller closes it.

        Raises:
            SettingsError: a file that the settings name cannot be read, or is wrong.
        """
        self._settings = settings
        self._policy_source = policy_source(settings, _log.warning)
        self._server = make_server(settings.listen, settings, busy_poll_s=settings.busy_poll_us * 1e-6)
        self._fanout = _rpc.Fanout(
            self._server,
            retry_delay_s=settings.retry_delay_s,
            retry_budget_tokens=settings.retry_budget_tokens,
            max_message_bytes=settings.max_message_bytes,
            max_in_flight_lookups_per_server=settings.max_in_flight_lookups_per_server,
            tls_root_ca=settings.read_file("shard_tls_ca"),
            tls_certificate=settings.read_file("shard_tls_cert"),
            tls_private_key=settings.read_file("shard_tls_key"),
        )
        _graph.configure(
            fanout=self._fanout.capsule(),
            intra_op_threads=settings.intra_op_threads,
            onednn=settings.onednn,
            max_in_flight_batches=settings.max_in_flight_batches,
            inline_budget_micros=settings.inline_budget_micros,
        )
        self._predictor = _graph.Predictor(max_in_flight=settings.max_in_flight, tensor_content=settings.tensor_content)
        repository = Repository(settings.repository) if settings.repository else None
        policies = BatchPolicies(_graph.BatchPolicy, self._policy_source.policies if self._policy_source else None)
        models = Models(repository, self._fanout, self._predictor, policies, settings.enable_batching)
        self.models = models
        self._statistics = StatisticsSource(
            clock=SystemClock(),
            predictor=self._predictor,
            fanout=self._fanout,
            graphs=lambda: models.graphs,
            policies=policies,
            lanes=_graph.batch_lanes,
        )
        # The native server holds the services: with real references both would keep each other for ever.
        weak_models, statistics = weakref.proxy(models), weakref.proxy(self._statistics)
        service = ModelService(lambda: weak_models.catalog)
        self._server.serve_native(PREDICT, self._predictor.handler())
        self._server.serve_python(GET_MODEL_STATUS, service.get_model_status)
        self._server.serve_python(GET_MODEL_METADATA, service.get_model_metadata)
        self._server.serve_python(GET_STATUS, StatusService(lambda: statistics.read(), _BUILD).get_status)
        self._store = store
        self._view: ClusterView | None = None
        self._keys = Keys(settings.cluster)
        self._cache: DiskCache | None = None
        if settings.state_dir:
            self._cache = DiskCache(Path(settings.state_dir) / f"{settings.cluster}.snapshot", self._keys)
        self._registration: Registration | None = None
        self._registering: asyncio.Task[None] | None = None
        self._reconciler: Reconciler | None = None
        self._policy_watch: PolicyWatch | None = None
        self._metrics: MetricsServer | None = None
        self.address = ""

    async def start(self) -> None:
        """Load plain SavedModels, bind, follow the cluster.

        Raises:
            TesseraError: a SavedModel cannot be loaded, the address cannot be bound, or the id is taken.
        """
        for entry in self._settings.saved_model:
            name, separator, directory = entry.partition("=")
            if not (name and separator and directory):
                raise SettingsError(f"--saved-model: got {entry!r}, expected NAME=DIR")
            await self.models.load_saved_model(name, Path(directory))
        if self._policy_source is not None:
            self._policy_watch = PolicyWatch(self._policy_source, self.models.set_policies)
        self._start_metrics()
        port = self._server.start()
        self.address = with_port(self._settings.listen, port)
        if self._store is not None:
            await self._follow(self._store)
        _log.info("listening on %s", self.address)

    @property
    def metrics_address(self) -> str:
        """Where Prometheus reads; empty without --metrics-port."""
        return self._metrics.address if self._metrics is not None else ""

    def reread_policies(self) -> None:
        """Read the policy file again now; on the event loop."""
        if self._policy_source is None:
            _log.warning("SIGHUP: nothing to read again without a policy file")
        elif self._policy_watch is not None:  # without one the router still starts: it will look by itself
            self._policy_watch.read_now()

    def _start_metrics(self) -> None:
        if self._settings.metrics_port is None:
            return
        from router.metrics import RouterCollector  # here: most of the library's import time is of no use without it
        from router.metrics_server import PATHS, MetricsServer

        host = self._settings.listen.rpartition(":")[0].strip("[]")
        self._metrics = MetricsServer(host, self._settings.metrics_port, RouterCollector(self._statistics.read, _BUILD))
        _log.info("metrics on http://%s%s", self._metrics.address, PATHS[0])

    async def _follow(self, store: Store) -> None:
        settings = self._settings
        self._view = ClusterView(store, self._keys, initial=self._last_snapshot())
        self._view.start()
        router_id = settings.router_id or f"{socket.gethostname()}-{self.address.rpartition(':')[2]}"
        record = RouterRecord(str(uuid.uuid4()), settings.advertised(self.address))
        self._registration = Registration(store, self._keys.router(router_id), record)
        try:
            await self._registration.start()
        except (UnavailableError, DeadlineExceededError) as error:
            _log.warning("not registered yet: %s", error.message)
            later = self._registration.start_when_reachable()  # serving does not depend on it
            self._registering = asyncio.create_task(later, name="router.register")
        self._reconciler = Reconciler(self._view, self._apply)
        self._reconciler.start()

    def _last_snapshot(self) -> ClusterSnapshot | None:
        """Return what the last run of this router kept on disk, if it is whole."""
        try:
            return self._cache.load() if self._cache is not None else None
        except DataLossError as error:
            _log.error("going on without the last placement: %s", error.message)
            return None

    async def _apply(self, snapshot: ClusterSnapshot) -> bool:
        """Serve what `snapshot` says is current, and keep it on disk; return whether all could be loaded."""
        complete = await self.models.reconcile(snapshot)
        if self._cache is not None and self._view is not None and self._view.status.connected:
            try:
                await asyncio.to_thread(self._cache.save, snapshot)
            except UnavailableError as error:
                _log.error("%s", error.message)
        return complete

    async def drain(self) -> None:
        """Leave the cluster, let requests in progress end within `drain_timeout_s`, stop. May be called once."""
        if self._reconciler is not None:
            await self._reconciler.stop()
        if self._registering is not None:
            self._registering.cancel()
        if self._registration is not None:
            await self._registration.stop()
        if self._view is not None:
            await self._view.stop()
        if self._policy_watch is not None:
            await self._policy_watch.stop()
        if not await asyncio.to_thread(self._server.drain, self._settings.drain_timeout_s):
            _log.warning("requests were cut off after --drain-timeout-s=%g", self._settings.drain_timeout_s)
        if self._metrics is not None:  # only now: how the drain went is of interest too
            await asyncio.to_thread(self._metrics.stop)
        await asyncio.to_thread(self._fanout.stop)
        await asyncio.to_thread(self._server.stop)
