"""Turns the cluster's records into what the native core serves: root graphs, routes, one published snapshot.

All methods run on the router's event loop; loading runs on helper threads. What serves is only ever replaced by
something that loaded: a placement whose graphs cannot be loaded leaves the last good one in place, as the catalog says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from batching.policy_file import PolicyFile
from cpp_ext import _graph, _rpc
from placement.records import PackageRef, Placement
from placement.view import ClusterSnapshot
from router.batch_policies import BatchPolicies, NamedGraph
from router.catalog import Catalog, VersionState, VersionStatus
from tessera.errors import DataLossError, NotFoundError, TesseraError
from tessera.manifest import Manifest
from tessera.repository import Repository

_log = logging.getLogger("router.models")


@dataclass(frozen=True)
class LoadedPackage:
    """A package's root graph in memory."""

    manifest: Manifest
    graph: _graph.Graph


@dataclass
class _Served:
    """What is published for one model."""

    placement: Placement
    addresses: tuple[str, ...]
    versions: Sequence[_graph.Version]


@dataclass
class Models:
    """The models of one router.

    Args:
        repository: where packages are; None when only plain SavedModels are served.
        fanout: the client of the shard servers.
        predictor: what is published to.
        policies: of the batched regions; what is loaded gets its own before it serves.
        batching: False runs batched regions request by request.

    Attributes:
        graphs: what is loaded; replaced as a whole, so that any thread may read it.
    """

    repository: Repository | None
    fanout: _rpc.Fanout
    predictor: _graph.Predictor
    policies: BatchPolicies
    batching: bool = True
    graphs: tuple[NamedGraph, ...] = ()
    _packages: dict[str, LoadedPackage] = field(default_factory=dict)
    _served: dict[str, _Served] = field(default_factory=dict)
    _plain: dict[str, tuple[int, _graph.Graph]] = field(default_factory=dict)
    _statuses: dict[str, dict[int, VersionStatus]] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=Catalog)

    async def load_saved_model(self, name: str, directory: Path) -> None:
        """Load a plain SavedModel and serve it; `directory` holds saved_model.pb or numbered versions.

        Raises:
            NotFoundError: neither is there.
            TesseraError: TensorFlow cannot load it.
        """
        version, path = find_saved_model(name, directory)
        graph = await asyncio.to_thread(_graph.Graph.load, str(path), name=f"{name}:{version}", batching=self.batching)
        self.policies.apply(name, graph)
        self._plain[name] = (version, graph)
        self._statuses[name] = {version: VersionStatus(VersionState.AVAILABLE, signature_defs=graph.signature_defs)}
        self._publish()
        _log.info("model %s version %d: serving %s", name, version, path)

    async def reconcile(self, snapshot: ClusterSnapshot) -> bool:
        """Serve what `snapshot` says is current; return whether everything could be loaded.

        A model that is no longer in the snapshot goes on: only an unload, which is an operation of its own, ends it.
        """
        complete = True
        for name, view in sorted(snapshot.models.items()):
            if view.placement is None:
                continue
            if name in self._plain:
                _log.warning("model %s: is served from --saved-model; its placement is ignored", name)
                continue
            addresses = tuple(snapshot.address_of(server) for server in view.placement.servers)
            served = self._served.get(name)
            if served and served.placement.digest == view.placement.digest and served.addresses == addresses:
                continue
            complete &= await self._serve(view.placement, addresses)
        return complete

    async def _serve(self, placement: Placement, addresses: tuple[str, ...]) -> bool:
        """Load what `placement` names, then publish it as a whole; return whether that was possible."""
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
            _graph.Version(
                version=reference.version,
                graph=package.graph,
                route=self._route(placement, reference, package.manifest, addresses),
                labels=reference.labels,
            )
            for reference, package in packages
        ]
        self._served[placement.model] = _Served(placement, addresses, versions)
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
            package = await asyncio.to_thread(self._load, model, reference)
            self.policies.apply(model, package.graph)  # here and not earlier: the policies may have changed meanwhile
            self._packages[reference.digest] = package
        return self._packages[reference.digest]

    def _load(self, model: str, reference: PackageRef) -> LoadedPackage:
        """Read, check and load one package; runs on a helper thread."""
        assert self.repository is not None
        manifest = self.repository.read_manifest(model, reference.version)
        if manifest.digest != reference.digest:
            raise DataLossError(
                f"manifest of model {model} version {reference.version}: has digest {manifest.digest}, "
                f"the placement expects {reference.digest}"
            )
        self.repository.verify_files(manifest)
        blobs = {
            weight.digest: str(self.repository.verify_blob(weight.digest, weight.bytes)) for weight in manifest.weights
        }
        directory = self.repository.package_dir(model, reference.version)
        name = f"{model}:{reference.version}"
        return LoadedPackage(
            manifest, _graph.Graph.load(str(directory), blobs=blobs, name=name, batching=self.batching)
        )

    def _route(
        self, placement: Placement, reference: PackageRef, manifest: Manifest, addresses: tuple[str, ...]
    ) -> _graph.Capsule | None:
        """Return where the package's tables are, or None when it has none."""
        if not manifest.tables:
            return None
        route = self.fanout.route(
            model=placement.model,
            version=reference.version,
            epoch=placement.epoch,
            package_digest=bytes.fromhex(reference.digest),
            targets=[
                _rpc.Target(server_id=server, address=address)
                for server, address in zip(placement.servers, addresses, strict=True)
            ],
            slots=placement.slot_servers,
            tables=[
                _rpc.RoutedTable(name=table.name, rows=table.rows, row_bytes=table.row_bytes, buckets=table.buckets)
                for table in manifest.tables
            ],
        )
        return route.capsule()

    def _publish(self) -> None:
        models: dict[str, Sequence[_graph.Version]] = {name: served.versions for name, served in self._served.items()}
        for name, (version, graph) in self._plain.items():
            models[name] = [_graph.Version(version=version, graph=graph)]
        self.predictor.publish(models)
        self.graphs = tuple(self._loaded())
        self._update_catalog()

    def set_policies(self, policies: PolicyFile) -> list[str]:
        """Batch by `policies` from now on, in what is loaded and what will be; return what changed, one line a region.

        Raises:
            InvalidArgumentError: the native core refuses a policy; names the field. Nothing was changed.
        """
        return self.policies.replace(policies, self._loaded())

    def _loaded(self) -> Iterator[NamedGraph]:
        for name, (version, graph) in self._plain.items():
            yield NamedGraph(name, version, graph)
        for package in self._packages.values():
            yield NamedGraph(package.manifest.model, package.manifest.version, package.graph)

    def _update_catalog(self) -> None:
        labels: dict[str, Mapping[str, int]] = {
            name: {label: ref.version for ref in served.placement.versions for label in ref.labels}
            for name, served in self._served.items()
        }
        models = {name: MappingProxyType(dict(statuses)) for name, statuses in self._statuses.items()}
        self.catalog = Catalog(MappingProxyType(models), MappingProxyType(labels))

    def _drop_unused_packages(self) -> None:
        used = {reference.digest for served in self._served.values() for reference in served.placement.versions}
        self._packages = {digest: package for digest, package in self._packages.items() if digest in used}


_NOTHING = VersionStatus(VersionState.START)


def find_saved_model(name: str, directory: Path) -> tuple[int, Path]:
    """Return (version, path) of the SavedModel that `directory` stands for: itself as version 1, or its largest number.

    Raises:
        NotFoundError: there is none; names the model and the directory.
    """
    if (directory / "saved_model.pb").is_file():
        return 1, directory
    numbered = [path for path in directory.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if not numbered:
        raise NotFoundError(
            f"model {name}: {directory} holds neither saved_model.pb nor a numbered directory with one in it"
        )
    largest = max(numbered, key=lambda path: int(path.parent.name)).parent
    return int(largest.name), largest
