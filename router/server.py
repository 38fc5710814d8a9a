"""Wires one router together: native server, fan-out, models, the view of the cluster, registration, drain."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from cpp_ext import _graph, _rpc
from cpp_ext.server import show_certificates
from placement.store import Store
from placement.tasks import end
from router.batch_policies import BatchPolicies, PolicySource, policy_source
from router.cluster import ClusterMember
from router.config_watch import ConfigWatch
from router.configured import configured_models
from router.explain_service import ExplainService
from router.health_service import HealthService
from router.model_service import ModelService
from router.models import Models
from router.plain_models import make_lifecycle
from router.policy_watch import PolicyWatch
from router.readiness import Readiness
from router.reload_service import ReloadService
from router.rest_port import make_rest_server
from router.services import make_grpc_server, register, register_for_tools
from router.settings import RouterSettings
from router.statistics import LeaseStatistics, RouterStatistics, StatisticsSource
from router.status_service import StatusService, to_message
from tessera.certificates import Certificates, CertificateSource, follow_certificates, validity
from tessera.clock import SystemClock
from tessera.monitoring import metrics_text, open_monitoring
from tessera.process_settings import with_port
from tessera.repository import Repository

if TYPE_CHECKING:
    from tessera.monitoring import Collect
    from tessera.monitoring_port import MonitoringPort

_log = logging.getLogger("router.server")

_BUILD = version("tessera-serving")


class Router:
    """A router in this process; several may live in one. Used on one event loop."""

    def __init__(
        self,
        settings: RouterSettings,
        store: Store | None,
        *,
        certificates: CertificateSource | None = None,
        policy_file: PolicySource | None = None,
        tell_ready: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Make all parts; nothing is loaded or bound yet.

        Args:
            settings: what the process was told.
            store: the control plane; None serves plain models only. The caller closes it.
            certificates: of gRPC, where the settings name no files.
            policy_file: how batches are made, where the settings name no file.
            tell_ready: is called when the router becomes ready, and when it is no longer; on the event loop.

        Raises:
            TesseraError: a file that the settings name cannot be read, or is wrong.
        """
        self._settings = settings
        self._policy_source = policy_file or policy_source(settings, _log.warning)
        self._plain = configured_models(settings)
        self._read_certificates = settings.certificates if settings.tls_cert else certificates or Certificates
        self._certificates = self._read_certificates()
        self._server = make_grpc_server(settings, self._certificates)
        self._fanout = _rpc.Fanout(
            self._server,
            retry_delay_s=settings.retry_delay_s,
            retry_budget_tokens=settings.retry_budget_tokens,
            max_message_bytes=settings.max_message_bytes,
            max_in_flight_lookups_per_server=settings.max_in_flight_lookups_per_server,
            tls_root_ca_file=settings.checked_file("shard_tls_ca"),
            tls_certificate_file=settings.checked_file("shard_tls_cert"),
            tls_private_key_file=settings.checked_file("shard_tls_key"),
            tls_poll_s=settings.tls_poll_s,
        )
        _graph.configure(
            fanout=self._fanout.capsule(),
            intra_op_threads=settings.intra_op_threads,
            onednn=settings.onednn,
            max_in_flight_batches=settings.max_in_flight_batches,
            inline_budget_micros=settings.inline_budget_micros,
        )
        self._predictor = _graph.Predictor(
            max_in_flight=settings.max_in_flight,
            tensor_content=settings.tensor_content,
            check_method_names=settings.method_name_check,
        )
        repository = Repository(settings.repository) if settings.repository else None
        policies = BatchPolicies(_graph.BatchPolicy, self._policy_source.policies if self._policy_source else None)
        models = Models(repository, self._fanout, self._predictor, policies, settings.enable_batching)
        self.models = models
        self._cluster = cluster = ClusterMember(settings, store, models) if store is not None else None
        self.lifecycle = make_lifecycle(settings, models)
        models.memory_limit_bytes, models.plain_bytes = settings.memory_limit_bytes, self.lifecycle.used_bytes
        self._statistics = StatisticsSource(
            clock=SystemClock(),
            predictor=self._predictor,
            fanout=self._fanout,
            graphs=lambda: models.graphs,
            policies=policies,
            lanes=_graph.batch_lanes,
            traffic=models.traffic.statistics,
            catalog=lambda: models.catalog,
            loads=self.lifecycle.loader.recorder,
            is_ready=lambda: not self.readiness.missing,
            view=lambda: self._cluster.read_view() if self._cluster is not None else None,
            leases=lambda: cluster.leases if cluster is not None else LeaseStatistics(),
            certificate=lambda: validity(self._certificates.certificate),
        )
        # The native server holds the services: with real references both would keep each other for ever.
        weak_models, statistics = weakref.proxy(models), weakref.proxy(self._statistics)
        service = ModelService(lambda: weak_models.catalog)
        self._health = HealthService()
        register(
            self._server,
            predictor=self._predictor,
            models=service,
            reload=ReloadService(weakref.proxy(self.lifecycle), settings.reload_timeout_s),
            status=StatusService(lambda: statistics.read(), _BUILD).get_status,
            explain=ExplainService(lambda model: weak_models.traced(model), _graph.Predictor).explain,
            health=self._health,
        )
        self._profiler = register_for_tools(
            self._server, figures=lambda: str(to_message(statistics.read(), _BUILD)), profiler=settings.profiler
        )
        self._tell_ready = tell_ready
        self.readiness = Readiness(self._sources(), self._on_ready)
        self._metrics_text = metrics_text(lambda: _collector(lambda: statistics.read()))
        readiness = self.readiness
        self._rest = make_rest_server(
            settings, self._predictor, service, metrics=self._metrics_text, missing=lambda: readiness.missing
        )
        self._policy_watch: PolicyWatch | None = None
        self._config_watch: ConfigWatch | None = None
        self._monitoring: MonitoringPort | None = None
        self._certificate_watch: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self) -> None:
        """Load the plain models that are there, bind, follow the cluster.

        Raises:
            TesseraError: a SavedModel cannot be loaded, the address cannot be bound, or the id is taken.
        """
        if self._rest is not None:  # before models are loaded: /healthz and /readyz are for that time, too
            await asyncio.to_thread(self._rest.start)
            _log.info("REST on %s", self._rest.address)
        self._monitoring = open_monitoring(  # likewise
            self._settings, self._settings.listen, metrics=self._metrics_text, missing=lambda: self.readiness.missing
        )
        await self.lifecycle.start(self._plain, timeout_s=self._settings.start_timeout_s)
        if self._policy_source is not None:
            self._policy_watch = PolicyWatch(self._policy_source, self.models.set_policies)
        self._follow_config_file()
        port = self._server.start()
        self.address = with_port(self._settings.listen, port)
        self._certificate_watch = asyncio.create_task(
            follow_certificates(
                self._read_certificates,
                self._show,
                self._certificates,
                poll_s=self._settings.tls_poll_s,
            ),
            name="router.certificates",
        )
        if self._cluster is not None:
            await self._cluster.start(self.address)
        self.readiness.start()
        _log.info("listening on %s", self.address)

    def _show(self, certificates: Certificates) -> None:
        show_certificates(self._server, certificates)
        self._certificates = certificates

    def _sources(self) -> list[Callable[[], list[str]]]:
        """Return who knows what is missing until the router is ready."""
        cluster, lifecycle = self._cluster, self.lifecycle
        plain = [lambda: lifecycle.ready()[1]]
        return [*plain, lambda: cluster.missing] if cluster is not None else plain

    def _on_ready(self, ready: bool) -> None:
        self._health.set_serving(ready)
        self._tell_ready(ready)

    @property
    def addresses(self) -> dict[str, str]:
        """Where this router is reached, for the ready file."""
        rest = self._rest.address if self._rest is not None else ""
        return {"address": self.address, "rest": rest, "metrics": self.metrics_address}

    @property
    def metrics_address(self) -> str:
        """Where Prometheus and probes ask; empty without --metrics-port."""
        return self._monitoring.address if self._monitoring is not None else ""

    def reread_policies(self) -> None:
        """Read the policy file again now; on the event loop."""
        if self._policy_source is None:
            _log.warning("SIGHUP: nothing to read again without a policy file")
        elif self._policy_watch is not None:  # without one the router still starts: it will look by itself
            self._policy_watch.read_now()

    def _follow_config_file(self) -> None:
        settings, lifecycle = self._settings, self.lifecycle
        if settings.model_config_file and settings.model_config_poll_s > 0:
            self._config_watch = ConfigWatch(
                lambda: configured_models(settings),
                lambda config: lifecycle.apply(config, timeout_s=settings.reload_timeout_s),
                self._plain,
                poll_s=settings.model_config_poll_s,
                retry_s=settings.load_retry_interval_s,
            )

    async def drain(self) -> None:
        """Let requests in progress end within `drain_timeout_s`, leave the cluster, stop. May be called once."""
        await self.readiness.stop("the router is draining")
        self._health.drain()
        if self._profiler is not None:
            self._profiler.close()
        if self._certificate_watch is not None:
            await end(self._certificate_watch)
        if self._config_watch is not None:
            await self._config_watch.stop()
        await self.lifecycle.stop()
        if self._policy_watch is not None:
            await self._policy_watch.stop()
        timeout_s = self._settings.drain_timeout_s
        ports = (self._server, self._rest) if self._rest is not None else (self._server,)
        if not all(await asyncio.gather(*(asyncio.to_thread(port.drain, timeout_s) for port in ports))):
            _log.warning("requests were cut off after --drain-timeout-s=%g", timeout_s)
        if self._cluster is not None:  # only now: servers keep for a router what its requests may ask for
            await self._cluster.stop()
        await asyncio.to_thread(self.models.traffic.stop)
        if self._monitoring is not None:  # only now: how the drain went is of interest too
            await asyncio.to_thread(self._monitoring.stop)
        await asyncio.to_thread(self._fanout.stop)
        await asyncio.to_thread(self._server.stop)


def _collector(read: Callable[[], RouterStatistics]) -> Collect:
    from router.metrics import RouterCollector  # here: for the import time of Prometheus' library

    return RouterCollector(read, _BUILD).collect
