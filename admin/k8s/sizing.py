"""How many shard servers packages need, and how much memory. Pure: asks the planner that will place them, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from placement.plan import PlanServer, plan_placement, slot_bytes
from placement.records import PackageRef
from placement.slots import default_slots
from shard_server.memory import blob_share
from tessera.errors import FailedPreconditionError, InvalidArgumentError
from tessera.manifest import Manifest
from tessera.settings import format_bytes

MAX_SERVERS = 1000
"""What the planner has been measured with."""

_TRIES = 16
"""Servers above the lower bound that are tried; slots of uneven sizes take one or two."""

_ROUTER_BYTES = 1 << 30
"""What a router takes before it has a graph, with room for requests."""

_GIB = 1 << 30


@dataclass(frozen=True)
class ClusterSize:
    """What the manifests are filled with.

    Attributes:
        servers: replicas of the StatefulSet.
        shard_memory_bytes: of each, as it was asked for.
        router_memory_bytes: of each router.
        repository_bytes: of the volume with packages and blobs.
        cache_bytes: of each shard server's own volume.
        table_bytes: one copy of all tables, each blob once.
        root_bytes: what routers keep of all packages.
        fullest_bytes: what the planner puts on the fullest server.
        capacity_bytes: what a server takes at most.
    """

    servers: int
    shard_memory_bytes: int
    router_memory_bytes: int
    repository_bytes: int
    cache_bytes: int
    table_bytes: int
    root_bytes: int
    fullest_bytes: int
    capacity_bytes: int


def size_cluster(
    models: Mapping[str, Sequence[Manifest]],
    *,
    shard_memory_bytes: int,
    replicas: int,
    spare: float,
    slots: Callable[[int], int] = default_slots,
) -> ClusterSize:
    """Return the smallest cluster that the planner places all of `models` on.

    Args:
        models: versions of each model that are served at once.
        shard_memory_bytes: memory of a shard server; three quarters of it are for blobs.
        replicas: servers that hold each slot; every server counts as a failure domain of its own.
        spare: part of each server's room that stays free, in [0, 0.9], for the next version and for a server less.
        slots: how many slots a model gets on so many servers.

    Raises:
        InvalidArgumentError: an argument is out of range; names it.
        FailedPreconditionError: a slot does not fit on a server, or it would take more than `MAX_SERVERS`.

    Cost: some runs of the planner.
    """
    if replicas < 1:
        raise InvalidArgumentError(f"replicas: got {replicas}, expected at least 1")
    if not 0 <= spare <= 0.9:
        raise InvalidArgumentError(f"spare: got {spare}, expected 0 to 0.9")
    if shard_memory_bytes < 1:
        raise InvalidArgumentError(f"shard memory: got {shard_memory_bytes}, expected at least one byte")
    capacity_bytes = blob_share(shard_memory_bytes)
    room_bytes = math.floor(capacity_bytes * (1 - spare))
    table_bytes = sum(sum(slot_bytes(versions, 1)) for versions in models.values())
    blobs: dict[str, int] = {}
    root: dict[str, int] = {}
    for manifest in (manifest for versions in models.values() for manifest in versions):
        blobs |= manifest.blob_sizes()
        root |= {weight.digest: weight.bytes for weight in manifest.weights}
    servers, fullest_bytes = _servers(models, room_bytes, table_bytes, replicas, slots)
    root_bytes = sum(root.values())
    return ClusterSize(
        servers=servers,
        shard_memory_bytes=shard_memory_bytes,
        # Twice: a version that is rolled out and the one before it are there together.
        router_memory_bytes=_up_to(_ROUTER_BYTES + 2 * root_bytes, _GIB),
        repository_bytes=_up_to(3 * sum(blobs.values()), 10 * _GIB),
        cache_bytes=_up_to(2 * capacity_bytes, _GIB),  # what it holds, and as much of what it held before
        table_bytes=table_bytes,
        root_bytes=root_bytes,
        fullest_bytes=fullest_bytes,
        capacity_bytes=capacity_bytes,
    )


def _servers(
    models: Mapping[str, Sequence[Manifest]],
    room_bytes: int,
    table_bytes: int,
    replicas: int,
    slots: Callable[[int], int],
) -> tuple[int, int]:
    """Return how many servers it takes, and the bytes of the fullest one."""
    lowest = max(replicas, math.ceil(table_bytes * replicas / room_bytes) if room_bytes else MAX_SERVERS + 1)
    problem = f"it would take {lowest} servers of {format_bytes(room_bytes)} each"
    for servers in range(lowest, min(lowest + _TRIES, MAX_SERVERS) + 1):
        try:
            return servers, _fullest(models, servers, room_bytes, replicas, slots(servers))
        except FailedPreconditionError as error:
            problem = error.message
    raise FailedPreconditionError(
        f"{replicas} replicas of {format_bytes(table_bytes)} do not fit on up to {MAX_SERVERS} servers with room for "
        f"{format_bytes(room_bytes)} each: {problem}"
    )


def _fullest(models: Mapping[str, Sequence[Manifest]], servers: int, room_bytes: int, replicas: int, slots: int) -> int:
    """Place one model after the other, as `tessera model load` does, and return the bytes of the fullest server."""
    used = dict.fromkeys((f"server-{number}" for number in range(servers)), 0)
    for name, versions in models.items():
        plan = plan_placement(
            model=name,
            epoch=1,
            versions=[PackageRef(manifest.version, manifest.digest) for manifest in versions],
            servers=[PlanServer(server, server, 1, room_bytes - held) for server, held in used.items()],
            slot_bytes=slot_bytes(versions, slots),
            replicas=replicas,
        )
        for row in plan.servers:
            used[row.id] += row.bytes_after
    return max(used.values())


def _up_to(count: int, unit: int) -> int:
    return -(-count // unit) * unit
