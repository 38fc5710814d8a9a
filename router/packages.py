"""Loads the packages of a cluster, and says where their tables are."""

from __future__ import annotations

from dataclasses import dataclass

from cpp_ext import _graph, _rpc
from placement.records import PackageRef, Placement
from tessera.errors import DataLossError
from tessera.manifest import Manifest
from tessera.repository import Repository


@dataclass(frozen=True)
class LoadedPackage:
    """A package's root graph in memory."""

    manifest: Manifest
    graph: _graph.Graph


def load_package(repository: Repository, model: str, reference: PackageRef, *, batching: bool) -> LoadedPackage:
    """Read, check and load one package. Blocks.

    Raises:
        DataLossError: it is not the one that `reference` means, or damaged.
        TesseraError: it cannot be read or loaded.
    """
    manifest = repository.read_manifest(model, reference.version)
    if manifest.digest != reference.digest:
        raise DataLossError(
            f"manifest of model {model} version {reference.version}: has digest {manifest.digest}, "
            f"the placement expects {reference.digest}"
        )
    repository.verify_files(manifest)
    blobs = {weight.digest: str(repository.verify_blob(weight.digest, weight.bytes)) for weight in manifest.weights}
    directory = repository.package_dir(model, reference.version)
    name = f"{model}:{reference.version}"
    return LoadedPackage(manifest, _graph.Graph.load(str(directory), blobs=blobs, name=name, batching=batching))


def make_route(
    fanout: _rpc.Fanout, placement: Placement, reference: PackageRef, manifest: Manifest, addresses: tuple[str, ...]
) -> _graph.Capsule | None:
    """Return where the package's tables are, or None when it has none."""
    if not manifest.tables:
        return None
    route = fanout.route(
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
