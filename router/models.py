"""Turns the cluster's records into what the native core serves: root graphs, routes, one published snapshot.

All methods run on the router's event loop; loading runs on helper threads. What serves is only ever replaced by
something that loaded: a placement whose graphs cannot be loaded leaves the last good one in place, as the catalog says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from batching.policy_file import PolicyFile
from cpp_ext import _graph, _rpc
from placement.records import PackageRef, Placement, TrafficRecord
from placement.traffic import traffic_of, versions_of
from placement.view import ClusterSnapshot
from router.batch_policies import BatchPolicies, NamedGraph
from router.catalog import Catalog, VersionState, VersionStatus
from router.lifecycle.config import ServerConfig
from router.lifecycle.target import PlainModel
from router.packages import (
    LoadedPackage,
    RoutedVersion,
    find_package,
    load_package,
    make_route,
    native_versions,
)
from router.traced import Traced, trace_packages
from router.traffic import Traffic, all_labels, clustered_configs
from tessera.errors import NotFoundError, ResourceExhaustedError, TesseraError
from tessera.repository import Repository

_log = logging.getLogger("router.models")


@dataclass(frozen=True)
class _Served:
    """What is published for one model of the cluster."""

    placement: Placement
    addresses: tuple[str, ...]
    labels: Mapping[str, int]
    traffic: TrafficRecord
    versions: Sequence[RoutedVersion] = ()


@dataclass
class Models:
    """The models of one router.

    Args:
        repository: where packages are; None when only plain SavedModels are served.
        fanout: the client of the shard servers.
        predictor: what is published to.
        policies: of the batched regions; what is loaded gets its own before it serves.
        batching: False runs batched regions request by request.
        memory_limit_bytes: of plain models and packages together, at the peak; 0: no limit.
        plain_bytes: returns what plain models take of it.

    Attributes:
        graphs: what is loaded; replaced as a whole, so that any thread may read it.
        traffic: splits, copies and logs of all models.
    """

    repository: Repository | None
    fanout: _rpc.Fanout
    predictor: _graph.Predictor
    policies: BatchPolicies
    batching: bool = True
    memory_limit_bytes: int = 0
    plain_bytes: Callable[[], int] = lambda: 0
    graphs: tuple[NamedGraph, ...] = ()
    _packages: dict[str, LoadedPackage] = field(default_factory=dict)
    _served: dict[str, _Served] = field(default_factory=dict)
    _plain: Mapping[str, PlainModel] = field(default_factory=dict)
    _config: ServerConfig = field(default_factory=ServerConfig)
    _labels_known: bool = False
    _plain_statuses: Mapping[str, Mapping[int, VersionStatus]] = field(default_factory=dict)
    _statuses: dict[str, dict[int, VersionStatus]] = field(default_factory=dict)
    _staged: set[str] = field(default_factory=set)
    _loading_bytes: int = 0
    catalog: Catalog = field(default_factory=Catalog)
    traffic: Traffic = field(init=False)

    def __post_init__(self) -> None:
        self.traffic = Traffic(self.predictor)
        self._publish()

    def adopt_plain(self, model: str, version: int, graph: _graph.Graph) -> None:
        """See `router.lifecycle.manager.Target`, as for the next two."""
        _graph.Version(version=version, graph=graph)  # refuses a graph that needs shard servers
        self.policies.apply(model, graph)

    def serve_plain(self, models: Mapping[str, PlainModel], config: ServerConfig, *, started: bool) -> None:
        """Serve these plain models beside those of the cluster; of two with the same name, the plain one."""
        before = self._plain, self._config, self._labels_known
        self._plain, self._config, self._labels_known = models, config, started
        try:
            self._publish()
        except TesseraError:
            self._plain, self._config, self._labels_known = before
            raise

    def cluster_versions(self, model: str) -> Collection[int]:
        """See `router.lifecycle.target.Target`, as for the next one."""
        served = self._served.get(model)
        return [version.number for version in served.versions] if served is not None else []

    def cluster_bytes(self) -> int:
        """Return the memory of all packages, with the one that is being loaded."""
        return self._loading_bytes + sum(package.resident_bytes for package in self._packages.values())

    def describe_plain(self, models: Mapping[str, Mapping[int, VersionStatus]]) -> None:
        """Tell these states."""
        self._plain_statuses = models
        self._update_catalog()

    async def reconcile(self, snapshot: ClusterSnapshot) -> bool:
        """Serve what `snapshot` says is current; return whether everything could be loaded.

        A model that is no longer in the snapshot goes on: only an unload, which is an operation of its own, ends it.
        """
        complete = True
        for name, view in sorted(snapshot.models.items()):
            if view.placement is None:
                if view.current is not None and view.current.unloaded:
                    self._withdraw(name)
                continue
            if name in self._plain_statuses:
                _log.warning("model %s: is configured as a plain model; its placement is ignored", name)
                continue
            addresses = tuple(snapshot.address_of(server) for server in view.placement.servers)
            labels = {label: one.version for one in versions_of(view) for label in one.labels}
            wanted = _Served(view.placement, addresses, labels, traffic_of(view))
            served = self._served.get(name)
            if served and served.placement.digest == view.placement.digest and served.addresses == addresses:
                if replace(served, versions=()) != wanted:  # only who gets the requests has changed
                    self._served[name] = replace(wanted, versions=served.versions)
                    self._publish()
                continue
            complete &= await self._serve(wanted)
        if complete and self._staged and not any(view.staged for view in snapshot.models.values()):
            self._staged = set()  # operations have ended: what they did not make current goes
            self._drop_unused_packages()
        return complete

    async def prepare(self, snapshot: ClusterSnapshot) -> dict[str, int]:
        """Load what the targets in `snapshot` name, so that making one current only publishes it.

        Returns:
            Model → epoch of the target that needs no more loading here. What cannot be loaded is logged and left out.
        """
        targets = [target for view in snapshot.models.values() for target in view.staged]
        self._staged = {reference.digest for target in targets for reference in target.versions}
        prepared = {}
        for target in targets:
            if self.repository is not None and target.model not in self._plain:
                try:
                    for reference in target.versions:
                        if reference.digest not in self._packages:
                            await self._load(target.model, reference)
                except TesseraError as error:
                    _log.error("model %s: cannot prepare epoch %d: %s", target.model, target.epoch, error.message)
                    continue
            prepared[target.model] = target.epoch
        return prepared

    def oldest_epochs(self) -> Mapping[str, int]:
        """Return model → oldest epoch of a route that a request may still hold."""
        epochs: Mapping[str, int] = self.fanout.stats()["oldest_epochs"]
        return epochs

    def traced(self, model: str) -> Traced:
        """Return what serves `model`, over routes that keep what lookups do; any thread may ask.

        Raises:
            NotFoundError: nothing does.
        """
        split = {name: one for name, one in self.traffic.splits().items() if name == model}
        labels = {name: one for name, one in self._labels().items() if name == model}
        if (plain := self._plain.get(model)) is not None:
            versions = [RoutedVersion(number, graph) for number, graph in plain.graphs.items()]
            return Traced(0, native_versions(versions, labels.get(model, {}), ()), split, labels)
        if (served := self._served.get(model)) is None:
            raise NotFoundError(f"Servable not found for request: Latest({model})")
        packages = [(one, self._packages[one.digest]) for one in served.placement.versions]
        return trace_packages(self.fanout, served.placement, served.addresses, packages, split, labels)

    def told_placements(self) -> Mapping[str, bytes]:
        """Return model → the newest placement document that a shard server sent with a refusal."""
        return self.fanout.newest_placements()

    def placements_told(self) -> int:
        """Return how often what `told_placements` returns has changed; cheap."""
        return self.fanout.placements_told

    def avoid(self, servers: frozenset[str]) -> None:
        """From now on ask these shard servers only where no other has the rows."""
        self.fanout.avoid(servers)

    def _withdraw(self, name: str) -> None:
        """Serve a model no longer that was unloaded; requests that run keep what they pinned."""
        if self._served.pop(name, None) is None:
            return
        ended = {version: VersionStatus(VersionState.END) for version in self._statuses.get(name, {})}
        self._statuses[name] = ended
        self._drop_unused_packages()
        self._publish()
        _log.info("model %s: was unloaded", name)

    async def _serve(self, wanted: _Served) -> bool:
        """Load what the placement names, then publish it as a whole; return whether that was possible."""
        placement = wanted.placement
        statuses = dict(self._statuses.get(placement.model, {}))
        packages: list[tuple[PackageRef, LoadedPackage]] = []
        for reference in placement.versions:
            try:
                packages.append((reference, await self._package(placement.model, reference)))
            except TesseraError as error:
                _log.error("model %s version %d: %s", placement.model, reference.version, error.message)
                if statuses.get(reference.version, _NOTHING).state != VersionState.AVAILABLE:
                    statuses[reference.version] = VersionStatus(VersionState.END, error.code, error.message)
                self._statuses[placement.model] = statuses
                self._update_catalog()
                return False
        versions = [
            RoutedVersion(
                reference.version,
                package.graph,
                make_route(self.fanout, placement, reference, package.manifest, wanted.addresses),
            )
            for reference, package in packages
        ]
        self._served[placement.model] = replace(wanted, versions=versions)
        self._statuses[placement.model] = {
            reference.version: VersionStatus(VersionState.AVAILABLE, signature_defs=package.graph.signature_defs)
            for reference, package in packages
        }
        self._drop_unused_packages()
        self._publish()
        _log.info(
            "model %s: serving epoch %d, versions %s",
            placement.model,
            placement.epoch,
            ", ".join(str(reference.version) for reference in placement.versions),
        )
        return True

    async def _package(self, model: str, reference: PackageRef) -> LoadedPackage:
        """Return the package, loaded before or now."""
        if reference.digest not in self._packages:
            status = self._statuses.setdefault(model, {})
            status.setdefault(reference.version, VersionStatus(VersionState.LOADING))
            self._update_catalog()
            await self._load(model, reference)
        return self._packages[reference.digest]

    async def _load(self, model: str, reference: PackageRef) -> None:
        """Load a package, if there is memory for it."""
        repository = self.repository
        assert repository is not None
        found = await asyncio.to_thread(find_package, repository, model, reference)
        peak_bytes = found.memory.peak_bytes
        if self.memory_limit_bytes:
            used_bytes = self.cluster_bytes() + self.plain_bytes()
            if used_bytes + peak_bytes > self.memory_limit_bytes:
                raise ResourceExhaustedError(
                    f"Insufficient resources to load servable {{name: {model} version: {reference.version}}}: it needs "
                    f"{peak_bytes} bytes, {used_bytes} of {self.memory_limit_bytes} are in use"
                )
        self._loading_bytes = peak_bytes
        try:
            package = await asyncio.to_thread(load_package, repository, found, batching=self.batching)
        finally:
            self._loading_bytes = 0
        self.policies.apply(model, package.graph)  # here and not earlier: the policies may have changed meanwhile
        self._packages[reference.digest] = package

    def _publish(self) -> None:
        versions: dict[str, Sequence[RoutedVersion]] = {name: served.versions for name, served in self._served.items()}
        versions |= {
            name: [RoutedVersion(number, graph) for number, graph in plain.graphs.items()]
            for name, plain in self._plain.items()
        }
        records = {name: served.traffic for name, served in self._served.items()}
        clustered = clustered_configs(self._config, records)
        self.traffic.configure([*(plain.config for plain in self._plain.values()), *clustered])
        labels = self._labels()
        self.predictor.publish(
            {
                name: native_versions(of, labels.get(name, {}), self.traffic.hooks(name))
                for name, of in versions.items()
            },
            traffic=self.traffic.splits(),
            labels=labels,
            labels_known=self._labels_known,
        )
        self.graphs = tuple(self._loaded())
        self._update_catalog()

    def set_policies(self, policies: PolicyFile) -> list[str]:
        """Batch by `policies` from now on, in what is loaded and what will be; return what changed, one line a region.

        Raises:
            InvalidArgumentError: the native core refuses a policy; names the field. Nothing was changed.
        """
        return self.policies.replace(policies, self._loaded())

    def _loaded(self) -> Iterator[NamedGraph]:
        for name, plain in self._plain.items():
            for version, graph in plain.graphs.items():
                yield NamedGraph(name, version, graph)
        for package in self._packages.values():
            yield NamedGraph(package.manifest.model, package.manifest.version, package.graph)

    def _update_catalog(self) -> None:
        models = {name: MappingProxyType(dict(statuses)) for name, statuses in self._statuses.items()}
        models |= {name: MappingProxyType(dict(statuses)) for name, statuses in self._plain_statuses.items()}
        self.catalog = Catalog(MappingProxyType(models), MappingProxyType(self._labels()), self._labels_known)

    def _labels(self) -> dict[str, dict[str, int]]:
        return all_labels(self._config, {name: served.labels for name, served in self._served.items()})

    def _drop_unused_packages(self) -> None:
        used = {reference.digest for served in self._served.values() for reference in served.placement.versions}
        used |= self._staged
        self._packages = {digest: package for digest, package in self._packages.items() if digest in used}


_NOTHING = VersionStatus(VersionState.START)
