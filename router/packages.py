"""Loads the packages of a cluster, says where their tables are, and makes of versions what the native core takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpp_ext import _graph, _rpc
from placement.records import PackageRef, Placement
from router.platforms.base import MemoryEstimate
from router.platforms.saved_model import TensorFlowPlatform
from tessera.errors import DataLossError
from tessera.manifest import Manifest
from tessera.repository import Repository


@dataclass(frozen=True)
class FoundPackage:
    """A package in the repository that is the one a placement means."""

    manifest: Manifest
    directory: Path
    memory: MemoryEstimate


@dataclass(frozen=True)
class LoadedPackage:
    """A package's root graph in memory."""

    manifest: Manifest
    graph: _graph.Graph
    resident_bytes: int = 0


def find_package(repository: Repository, model: str, reference: PackageRef) -> FoundPackage:
    """Read and check what a package says of itself. Blocks.

    Raises:
        DataLossError: it is not the one that `reference` means, or damaged.
        TesseraError: it cannot be read.
    """
    manifest = repository.read_manifest(model, reference.version)
    if manifest.digest != reference.digest:
        raise DataLossError(
            f"manifest of model {model} version {reference.version}: has digest {manifest.digest}, "
            f"the placement expects {reference.digest}"
        )
    repository.verify_files(manifest)
    directory = repository.package_dir(model, reference.version)
    root = TensorFlowPlatform().estimate(directory)
    weights_bytes = sum(weight.bytes for weight in manifest.weights)
    memory = MemoryEstimate(root.resident_bytes + weights_bytes, root.peak_bytes + weights_bytes)
    return FoundPackage(manifest, directory, memory)


def load_package(repository: Repository, found: FoundPackage, *, batching: bool) -> LoadedPackage:
    """Load the root of a package. Blocks.

    Raises:
        TesseraError: a blob of its weights is damaged, or the graph cannot be loaded.
    """
    manifest = found.manifest
    blobs = {weight.digest: str(repository.verify_blob(weight.digest, weight.bytes)) for weight in manifest.weights}
    name = f"{manifest.model}:{manifest.version}"
    graph = _graph.Graph.load(str(found.directory), blobs=blobs, name=name, batching=batching)
    return LoadedPackage(manifest, graph, found.memory.resident_bytes)


def make_route(
    fanout: _rpc.Fanout, placement: Placement, reference: PackageRef, manifest: Manifest, addresses: tuple[str, ...]
) -> _graph.Capsule | None:
    """Return where the package's tables are, or None when it has none."""
    route = open_route(fanout, placement, reference, manifest, addresses)
    return route.capsule() if route is not None else None


def open_route(
    fanout: _rpc.Fanout,
    placement: Placement,
    reference: PackageRef,
    manifest: Manifest,
    addresses: tuple[str, ...],
    *,
    trace: bool = False,
) -> _rpc.Route | None:
    """As `make_route`; with `trace` the route keeps what lookups do."""
    if not manifest.tables:
        return None
    return fanout.route(
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
        trace=trace,
    )


@dataclass(frozen=True)
class RoutedVersion:
    """One version of a model: its graph, and where its tables are, if it has any."""

    number: int
    graph: _graph.Graph
    route: _graph.Capsule | None = None


def native_versions(
    versions: Sequence[RoutedVersion], labels: Mapping[str, int], hooks: Sequence[_graph.AnswerHook]
) -> list[_graph.Version]:
    """Return what is published of them; `labels` may name others too, `hooks` see every answer."""
    return [
        _graph.Version(
            version=version.number,
            graph=version.graph,
            route=version.route,
            labels=sorted(label for label, number in labels.items() if number == version.number),
            hooks=hooks,
        )
        for version in versions
    ]
