"""Says what a change of placement means, server by server, and whether it can be made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.found import Found
from placement.records import MemberState, Placement
from placement.waves import peak_bytes

Owners = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Sizes:
    """Bytes of each slot in what is served now, in what will be, and in the two together."""

    now: Sequence[int]
    after: Sequence[int]
    both: Sequence[int]


@dataclass(frozen=True)
class ServerChange:
    """One server before, after, and while both are held; `limit_bytes` is what it can hold of this model."""

    id: str
    slots_now: int
    slots_after: int
    bytes_now: int
    bytes_after: int
    peak_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True)
class Check:
    """One condition of the change; `problem` is empty when it holds."""

    name: str
    problem: str


def owners(placement: Placement) -> list[tuple[str, ...]]:
    """Return the servers of each slot, best first."""
    return [tuple(placement.servers[position] for position in row) for row in placement.slot_servers]


def held(rows: Owners, sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return how many slots, and how many bytes of them, each server holds."""
    result: dict[str, tuple[int, int]] = {}
    for row, size in zip(rows, sizes, strict=True):
        for server in row:
            slots, total = result.get(server, (0, 0))
            result[server] = slots + 1, total + size
    return result


def limits_of(found: Found, current: Placement, sizes: Sequence[int]) -> dict[str, int]:
    """Return how many bytes of this model each live server can hold beside what it holds of others."""
    holds = held(owners(current), sizes)
    limits = {}
    for server, member in found.members.items():
        wanted = found.servers.get(server)
        capacity_bytes = wanted.capacity_bytes if wanted else member.capacity_bytes
        others_bytes = max(0, member.bytes_used - holds.get(server, (0, 0))[1])
        limits[server] = max(0, capacity_bytes - others_bytes)
    return limits


def moved_bytes(before: Owners, after: Owners, sizes: Sizes) -> int:
    """Return what has to be fetched: slots that a server did not have, and what is new in those that it had."""
    total = 0
    for slot, servers in enumerate(after):
        for server in servers:
            total += sizes.both[slot] - sizes.now[slot] if server in before[slot] else sizes.after[slot]
    return total


def describe_servers(
    current: Placement, targets: Sequence[Placement], sizes: Sizes, limits: Mapping[str, int]
) -> tuple[ServerChange, ...]:
    """Return one row for each server that holds something before or after; the peak is that of the worst wave."""
    after = targets[-1] if targets else current
    peaks: dict[str, int] = {}
    before, sizes_before = current, sizes.now
    for target in targets or (current,):
        for server, size in peak_bytes(before, target, sizes_before, sizes.after, sizes.both).items():
            peaks[server] = max(size, peaks.get(server, 0))
        before, sizes_before = target, sizes.after
    had = held(owners(current), sizes.now)
    has = held(owners(after), sizes.after if targets else sizes.now)
    rows = []
    for server in sorted(had.keys() | has.keys()):
        slots_now, bytes_now = had.get(server, (0, 0))
        slots_after, bytes_after = has.get(server, (0, 0))
        peak = peaks.get(server, 0)
        rows.append(ServerChange(server, slots_now, slots_after, bytes_now, bytes_after, peak, limits.get(server)))
    return tuple(rows)


def checks(
    found: Found,
    current: Placement,
    targets: Sequence[Placement],
    sizes: Sizes,
    limits: Mapping[str, int],
    lost: Sequence[str],
) -> tuple[Check, ...]:
    """Return every condition of the change, whether it holds or not."""
    after = targets[-1] if targets else current
    involved = sorted({*current.servers, *after.servers} - set(lost))
    return (
        Check("servers are well", "; ".join(filter(None, (_unwell(found, server) for server in involved)))),
        Check("replicas in distinct domains", _shared_domains(found, after)),
        Check("headroom", "; ".join(_too_full(describe_servers(current, targets, sizes, limits)))),
        Check("no other operation", _other_operation(found)),
    )


def _unwell(found: Found, server: str) -> str:
    member = found.members.get(server)
    if member is None:
        return f"{server} is gone"
    if member.state is not MemberState.SERVING:
        return f"{server} is {member.state.value}"
    return f"{server}: {member.error}" if member.error else ""


def _shared_domains(found: Found, after: Placement) -> str:
    domains = {s: found.servers[s].domain if s in found.servers else m.domain for s, m in found.members.items()}
    shared = [
        slot
        for slot, row in enumerate(owners(after))
        if len({domains.get(server, server) for server in row}) < len(row)
    ]
    return f"{len(shared)} slots, the first is {shared[0]}, would have two replicas in one" if shared else ""


def _too_full(rows: Sequence[ServerChange]) -> list[str]:
    return [
        f"{row.id} would hold {row.peak_bytes:,} bytes of {row.limit_bytes:,}"
        for row in rows
        if row.limit_bytes is not None and row.peak_bytes > row.limit_bytes and row.peak_bytes > row.bytes_now
    ]


def _other_operation(found: Found) -> str:
    operation = found.operation
    if operation is None or not operation.active:
        return ""
    return f"{operation.command or operation.kind} of {operation.owner} is {operation.state.value}"
