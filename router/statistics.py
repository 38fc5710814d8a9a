"""What the router has counted, gathered from the native core into one value for metrics and `tessera status`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from batching.policy_file import Policy
from placement.view import ViewReading
from router.batch_policies import BatchPolicies, NamedGraph
from router.catalog import Catalog, VersionStatus
from router.load_statistics import LoadRecorder, LoadStatistics
from router.request_log import RequestLogStatistics
from tessera.certificates import Validity
from tessera.clock import Clock
from tessera.memory import memory_limit_bytes


class _Counting(Protocol):
    """A native object with counters."""

    def stats(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class RegionStatistics:
    """A batched region of a loaded graph.

    Attributes:
        is_in_loop: it is in the body of a loop.
        refused: why it runs request by request nevertheless; empty when it is batched.
        policy: by which it is batched now.
        stats: as `_graph.Graph.batching_stats` has them.
    """

    model: str
    version: int
    region: str
    signatures: tuple[str, ...]
    is_in_loop: bool
    refused: str
    policy: Policy
    stats: Mapping[str, Any]


@dataclass(frozen=True)
class TrafficStatistics:
    """What was done with requests besides answering them, by model; `shadows` as `_graph.Shadow.counts` has them."""

    shadows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    logs: Mapping[str, RequestLogStatistics] = field(default_factory=dict)


@dataclass(frozen=True)
class LeaseStatistics:
    """How often the leases of a model's servers began to be ignored, and for which models they are now."""

    panics: int = 0
    panicking: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RouterStatistics:
    """One reading; `predictor`, `fanout` and `lanes` as the native core has them (`_graph.pyi`, `_rpc.pyi`).

    Attributes:
        unused_policies: entries of the policy file that speak of no region that is loaded.
        states: of the versions of each model.
        is_ready: what `/readyz` says.
        view: what is known of the cluster; None without one.
        memory_limit_bytes: that the process may use.
        certificate: when the one holds that is shown to clients; None without one.
    """

    uptime_s: float
    predictor: Mapping[str, Any]
    fanout: Mapping[str, Any]
    regions: tuple[RegionStatistics, ...]
    lanes: Mapping[str, Mapping[str, Any]]
    unused_policies: tuple[str, ...]
    traffic: TrafficStatistics = TrafficStatistics()
    states: Mapping[str, Mapping[int, VersionStatus]] = field(default_factory=dict)
    loads: LoadStatistics = LoadStatistics()
    is_ready: bool = False
    view: ViewReading | None = None
    leases: LeaseStatistics = LeaseStatistics()
    memory_limit_bytes: int = 0
    certificate: Validity | None = None


class StatisticsSource:
    """Reads the counters of one router; from any thread."""

    def __init__(
        self,
        *,
        clock: Clock,
        predictor: _Counting,
        fanout: _Counting,
        graphs: Callable[[], Iterable[NamedGraph]],
        policies: BatchPolicies,
        lanes: Callable[[], Mapping[str, Mapping[str, Any]]],
        traffic: Callable[[], TrafficStatistics] = TrafficStatistics,
        catalog: Callable[[], Catalog] = Catalog,
        loads: LoadRecorder | None = None,
        is_ready: Callable[[], bool] = bool,
        view: Callable[[], ViewReading | None] = lambda: None,
        leases: Callable[[], LeaseStatistics] = LeaseStatistics,
        certificate: Callable[[], Validity | None] = lambda: None,
    ) -> None:
        """The router starts now; `graphs` returns what is loaded."""
        self._traffic, self._catalog, self._loads = traffic, catalog, loads or LoadRecorder()
        self._is_ready, self._view, self._certificate = is_ready, view, certificate
        self._memory_limit_bytes = memory_limit_bytes()
        self._clock, self._started_s = clock, clock.monotonic_s()
        self._predictor, self._fanout, self._lanes = predictor, fanout, lanes
        self._graphs, self._policies, self._leases = graphs, policies, leases

    def read(self) -> RouterStatistics:
        """Return the counters of this moment. Cost: tens of microseconds a region."""
        graphs = tuple(self._graphs())
        return RouterStatistics(
            uptime_s=self._clock.monotonic_s() - self._started_s,
            predictor=self._predictor.stats(),
            fanout=self._fanout.stats(),
            regions=tuple(region for one in graphs for region in self._regions(one)),
            lanes=self._lanes(),
            unused_policies=tuple(self._policies.unused(graphs)),
            traffic=self._traffic(),
            states=self._catalog().models,
            loads=self._loads.read(),
            is_ready=self._is_ready(),
            view=self._view(),
            leases=self._leases(),
            memory_limit_bytes=self._memory_limit_bytes,
            certificate=self._certificate(),
        )

    def _regions(self, one: NamedGraph) -> Iterable[RegionStatistics]:
        found = one.graph.batch_regions
        if not found:
            return
        stats = one.graph.batching_stats()
        for region in sorted(found):
            yield RegionStatistics(
                model=one.model,
                version=one.version,
                region=region,
                signatures=tuple(found[region]["signatures"]),
                is_in_loop=found[region]["in_loop"],
                refused=found[region]["refused"],
                policy=self._policies.policy_of(one.model, one.graph, region),
                stats=stats[region],
            )
