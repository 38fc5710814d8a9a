"""Decides what this server has to hold: a pure function of the cluster's records. Loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from placement.records import OperationState, Placement
from placement.slots import slot_of
from placement.snapshot import ClusterSnapshot
from tessera.errors import ResourceExhaustedError
from tessera.manifest import Manifest


@dataclass(frozen=True)
class PackageKey:
    """Names one package: what is published to the table store under `digest`."""

    model: str
    version: int
    digest: str


@dataclass(frozen=True)
class DesiredPackage:
    """The buckets of one package that this server has to hold; `buckets[i]` belongs to table `i` of the manifest."""

    manifest: Manifest
    buckets: tuple[frozenset[int], ...]

    def blobs(self) -> dict[str, int]:
        """Return the size in bytes of each blob, by digest."""
        return {
            table.blobs[bucket]: table.bucket_bytes(bucket)
            for table, buckets in zip(self.manifest.tables, self.buckets, strict=True)
            for bucket in buckets
        }


def owned_buckets(manifest: Manifest, placement: Placement, server_id: str) -> tuple[frozenset[int], ...]:
    """Return, per table of the manifest, the buckets whose slot the placement gives to `server_id`.

    Cost: one hash per bucket of the package.
    """
    if server_id not in placement.servers:
        return tuple(frozenset() for _ in manifest.tables)
    position = placement.servers.index(server_id)
    owned_slots = {slot for slot, servers in enumerate(placement.slot_servers) if position in servers}
    return tuple(
        frozenset(b for b in range(table.buckets) if slot_of(table.name, b, placement.slots) in owned_slots)
        for table in manifest.tables
    )


def desired_packages(
    placements: Iterable[Placement], server_id: str, manifest_of: Callable[[str, int, str], Manifest]
) -> Mapping[PackageKey, DesiredPackage]:
    """Return what `server_id` has to hold for all of `placements` together: `ModelView.held` of each model.

    Packages of which it owns nothing are left out: a router never asks it for them.

    Args:
        placements: at most a few per model; their union counts, so nothing is dropped while a change is under way.
        server_id: this server.
        manifest_of: returns the manifest of (model, version, digest); its errors pass through.
    """
    parts = []
    for placement in placements:
        for version in placement.versions:
            key = PackageKey(placement.model, version.version, version.digest)
            manifest = manifest_of(key.model, key.version, key.digest)
            owned = owned_buckets(manifest, placement, server_id)
            if any(owned):
                parts.append({key: DesiredPackage(manifest, owned)})
    return merged(parts)


def merged(parts: Iterable[Mapping[PackageKey, DesiredPackage]]) -> Mapping[PackageKey, DesiredPackage]:
    """Return what all of `parts` ask for together."""
    desired: dict[PackageKey, DesiredPackage] = {}
    for part in parts:
        for key, package in part.items():
            if key in desired:
                both = tuple(a | b for a, b in zip(desired[key].buckets, package.buckets, strict=True))
                desired[key] = DesiredPackage(package.manifest, both)
            else:
                desired[key] = package
    return desired


def check_room(
    desired: Mapping[PackageKey, DesiredPackage], held: Mapping[PackageKey, DesiredPackage], capacity_bytes: int
) -> None:
    """Refuse to hold more than fits; before anything is read, so that memory never runs out half-way.

    What is held already is not refused: a capacity that was lowered takes nothing away.

    Raises:
        ResourceExhaustedError: says how much is needed, and how much this server can hold.
    """
    wanted = {digest: size for package in desired.values() for digest, size in package.blobs().items()}
    there = {digest for package in held.values() for digest in package.blobs()}
    needed_bytes = sum(wanted.values())
    if needed_bytes > capacity_bytes and wanted.keys() - there:
        raise ResourceExhaustedError(
            f"capacity: the placements give this server {needed_bytes:,} bytes of blobs, it can hold {capacity_bytes:,}"
        )


def released(snapshot: ClusterSnapshot) -> dict[str, int]:
    """Return, for each model whose operation tells servers to drop something, the version of that operation's record.

    A server that holds what `snapshot` asks for, and no more, says so with this in its own record.
    """
    return {
        name: view.operation_version
        for name, view in snapshot.models.items()
        if view.operation is not None and view.operation.state in (OperationState.DRAINED, OperationState.ABORTING)
    }


def slots_of_one(snapshot: ClusterSnapshot, server_id: str) -> dict[str, int]:
    """Return model → how many slots of its placement `server_id` has alone; models without are left out."""
    alone = {}
    for name, view in snapshot.models.items():
        if view.placement is not None and server_id in view.placement.servers:
            mine = (view.placement.servers.index(server_id),)
            count = sum(1 for servers in view.placement.slot_servers if tuple(servers) == mine)
            if count:
                alone[name] = count
    return alone
