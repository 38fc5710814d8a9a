"""Plans a placement: which servers hold which slot. Pure; equal arguments give equal placements.

The plan starts from the placement that is there and moves as little as it must:

1. what is held by servers that are still there stays;
2. missing replicas go, largest slots first, to the server that rendezvous hashing ranks best among those below their
   fair share of bytes (`placement.shares`), on a failure domain that the slot does not use yet;
3. single replicas move from servers above their share to servers below it while that helps (`placement.balance`);
4. the order within slots is changed, which moves nothing, until first replicas, which take the load, are even too.

Planning again with the same servers changes nothing, because steps 3 and 4 only make moves that help and end when
none does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.balance import balance_bytes, balance_first, fill_missing
from placement.records import PackageRef, Placement
from placement.shares import fair_shares
from placement.slots import slot_of
from tessera.errors import FailedPreconditionError, InvalidArgumentError
from tessera.manifest import Manifest

LAYOUT = 1
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlanServer:
    """A server that may get slots.

    Attributes:
        id: unique.
        domain: failure domain; replicas of a slot are on distinct ones.
        weight: how much of the bytes it should get, relative to others; ≥ 1.
        capacity_bytes: how much of this model it can hold; what it holds of this model already is part of it.
    """

    id: str
    domain: str
    weight: int
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server before and after; servers that leave have no limit."""

    id: str
    slots_now: int
    slots_after: int
    bytes_now: int
    bytes_after: int
    limit_bytes: int | None


@dataclass(frozen=True)
class Plan:
    """The next placement, and what it means.

    Attributes:
        servers: per server, by id.
        moved_bytes: what servers have to fetch that do not hold it now.
        minimum_moved_bytes: what any plan with perfectly even bytes would have to move.
        max_over_average: the fullest server relative to its fair share; 1.0 is even, also for a model without bytes.
    """

    placement: Placement
    servers: tuple[ServerPlan, ...]
    moved_bytes: int
    minimum_moved_bytes: int
    max_over_average: float


def slot_bytes(manifests: Iterable[Manifest], slots: int) -> list[int]:
    """Return how many bytes of blobs fall into each slot; a blob that several versions name counts once.

    Args:
        manifests: of the versions of one model.
        slots: how many slots.

    Cost: one hash per bucket.
    """
    blobs: list[dict[str, int]] = [{} for _ in range(slots)]
    for manifest in manifests:
        for table in manifest.tables:
            for bucket, digest in enumerate(table.blobs):
                blobs[slot_of(table.name, bucket, slots)][digest] = table.bucket_bytes(bucket)
    return [sum(sizes.values()) for sizes in blobs]


def plan_placement(
    *,
    model: str,
    epoch: int,
    versions: Sequence[PackageRef],
    servers: Sequence[PlanServer],
    slot_bytes: Sequence[int],
    replicas: int,
    current: Placement | None = None,
) -> Plan:
    """Return the placement of the next epoch.

    Args:
        model: its name.
        epoch: of the new placement.
        versions: what it serves.
        servers: all that may hold slots; in any order.
        slot_bytes: bytes of each slot; its length is the number of slots. All zeros: the model has no tables, and
        gets no servers.
        replicas: how many servers hold each slot, ≥ 1.
        current: what is there, with the same number of slots; None for a first placement.

    Raises:
        InvalidArgumentError: an argument is out of range; names it.
        FailedPreconditionError: fewer domains than replicas, or not enough capacity; says what is needed and what is
        there.

    Cost: seconds for 1,000 servers and 16,384 slots.
    """
    _check(servers, slot_bytes, replicas, current)
    sizes = np.array(slot_bytes, dtype=np.int64)
    ordered = sorted(servers, key=lambda server: server.id)
    if not sizes.any():
        ordered, assigned = [], np.empty((len(sizes), 0), dtype=np.int64)
    else:
        assigned = _assign(ordered, sizes, replicas, current)
    used = sorted(set(assigned.ravel().tolist()))
    position = {server: index for index, server in enumerate(used)}
    placement = Placement(
        model=model,
        epoch=epoch,
        layout=LAYOUT,
        slots=len(sizes),
        servers=tuple(ordered[server].id for server in used),
        slot_servers=tuple(tuple(position[server] for server in row) for row in assigned.tolist()),
        versions=tuple(sorted(versions, key=lambda reference: reference.version)),
    )
    return _report(placement, ordered, sizes, replicas, current)


def _check(servers: Sequence[PlanServer], sizes: Sequence[int], replicas: int, current: Placement | None) -> None:
    if replicas < 1:
        raise InvalidArgumentError(f"replicas: got {replicas}, expected at least 1")
    if not sizes or min(sizes) < 0:
        raise InvalidArgumentError("slot_bytes: expected at least one slot, and no negative number of bytes")
    if len({server.id for server in servers}) != len(servers):
        raise InvalidArgumentError("servers: expected distinct ids")
    for server in servers:
        if server.weight < 1 or server.capacity_bytes < 0:
            raise InvalidArgumentError(
                f"server {server.id}: got weight {server.weight} and capacity_bytes {server.capacity_bytes}, "
                "expected at least 1 and 0"
            )
    if current is not None and current.slots != len(sizes):
        raise InvalidArgumentError(
            f"slot_bytes: got {len(sizes)} slots, but the current placement has {current.slots}; "
            "another number is a new layout"
        )
    domains = {server.domain for server in servers}
    if any(sizes) and len(domains) < replicas:
        raise FailedPreconditionError(
            f"replicas: got {replicas}, but the {len(servers)} servers are in {len(domains)} failure domains "
            f"({', '.join(sorted(domains)) or 'none'}); every replica of a slot needs one of its own"
        )


def _assign(ordered: Sequence[PlanServer], sizes: IntArray, replicas: int, current: Placement | None) -> IntArray:
    """Return the servers of each slot as positions in `ordered`, best first, int64, shape [slots, replicas]."""
    names = sorted({server.domain for server in ordered})
    domains = np.array([names.index(server.domain) for server in ordered], dtype=np.int64)
    capacities = [server.capacity_bytes for server in ordered]
    weights = [server.weight for server in ordered]
    shares = fair_shares(
        [server.id for server in ordered], weights, capacities, domains.tolist(), int(sizes.sum()), replicas
    )
    assigned = _kept(ordered, domains, len(sizes), replicas, current)
    ids = [server.id for server in ordered]
    fill_missing(assigned, sizes, ids, np.array(weights, dtype=np.float64), domains, np.array(capacities), shares)
    balance_bytes(assigned, sizes, domains, np.array(capacities), shares)
    balance_first(assigned, sizes, shares)
    return assigned


def _kept(
    ordered: Sequence[PlanServer], domains: IntArray, slots: int, replicas: int, current: Placement | None
) -> IntArray:
    """Return what stays of the current placement; -1 where a replica is missing."""
    kept = np.full((slots, replicas), -1, dtype=np.int64)
    if current is None:
        return kept
    position = {server.id: index for index, server in enumerate(ordered)}
    translate = [position.get(server, -1) for server in current.servers]
    for slot, row in enumerate(current.slot_servers):
        used: set[int] = set()
        place = 0
        for old in row:
            server = translate[old]
            if server >= 0 and place < replicas and int(domains[server]) not in used:
                kept[slot, place] = server
                used.add(int(domains[server]))
                place += 1
    return kept


def _held(placement: Placement | None) -> dict[str, set[int]]:
    """Return the slots that each server holds."""
    held: dict[str, set[int]] = {}
    if placement is not None:
        for slot, row in enumerate(placement.slot_servers):
            for server in row:
                held.setdefault(placement.servers[server], set()).add(slot)
    return held


def _report(
    placement: Placement, ordered: Sequence[PlanServer], sizes: IntArray, replicas: int, current: Placement | None
) -> Plan:
    now, after = _held(current), _held(placement)
    size = sizes.tolist()

    def total(slots: Iterable[int]) -> int:
        return sum(size[slot] for slot in slots)

    limits: Mapping[str, int] = {server.id: server.capacity_bytes for server in ordered}
    rows = tuple(
        ServerPlan(
            id=server,
            slots_now=len(now.get(server, ())),
            slots_after=len(after.get(server, ())),
            bytes_now=total(now.get(server, ())),
            bytes_after=total(after.get(server, ())),
            limit_bytes=limits.get(server),
        )
        for server in sorted({*limits, *now, *after})
    )
    moved = sum(total(slots - now.get(server, set())) for server, slots in after.items())
    shares = dict.fromkeys(limits, 0.0)
    if ordered:
        names = sorted({server.domain for server in ordered})
        values = fair_shares(
            [server.id for server in ordered],
            [server.weight for server in ordered],
            [server.capacity_bytes for server in ordered],
            [names.index(server.domain) for server in ordered],
            sum(size),
            replicas,
        )
        shares = dict(zip(limits, values.tolist(), strict=True))
    kept = sum(min(row.bytes_now, shares.get(row.id, 0.0)) for row in rows)
    ratios = [row.bytes_after / shares[row.id] for row in rows if shares.get(row.id)]
    return Plan(
        placement=placement,
        servers=rows,
        moved_bytes=moved,
        minimum_moved_bytes=max(0, round(sum(shares.values()) - kept)),
        max_over_average=max(ratios, default=1.0),
    )
