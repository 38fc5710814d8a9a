"""The steps of the planner on arrays: fill what is missing, even out bytes, even out first replicas.

Arguments that all share:
    assigned: int64, shape [slots, replicas]: the server of each replica, best first, -1 for a missing one. Changed
    in place.
    sizes: int64, shape [slots]: bytes of each slot.
    domains: int64, shape [servers]: failure domain of each server.
    capacities: int64, shape [servers]: bytes.
    shares: float64, shape [servers]: bytes that each should hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from placement.slots import rank_costs, server_hashes
from tessera.errors import FailedPreconditionError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

TOLERANCE = 0.01
"""A server within this part of its share is left alone, so that a small unevenness never moves anything."""

_MIN_GAIN = 1 / 16
"""A move has to lower the excess of all servers together by this part of the bytes that it moves."""

_MAX_PASSES = 100


def fill_missing(
    assigned: IntArray,
    sizes: IntArray,
    ids: Sequence[str],
    weights: FloatArray,
    domains: IntArray,
    capacities: IntArray,
    shares: FloatArray,
) -> None:
    """Give every missing replica a server, the largest slots first.

    Raises:
        FailedPreconditionError: no server of a free domain has room for a slot; names it and its bytes.

    Cost: about 0.1 ms per missing replica at 1,000 servers.
    """
    hashes = server_hashes(ids)
    loads = server_loads(assigned, sizes, len(ids))
    domain_count = int(domains.max()) + 1
    missing = [slot for slot in np.lexsort((np.arange(len(sizes)), -sizes)).tolist() if (assigned[slot] < 0).any()]
    # What each domain can still get from the slots not filled yet: a domain that needs all of it comes first.
    outstanding = np.zeros(domain_count, dtype=np.float64)
    for slot in missing:
        outstanding += sizes[slot]
        outstanding[domains[assigned[slot][assigned[slot] >= 0]]] -= sizes[slot]
    room: FloatArray = np.bincount(domains, weights=shares - loads, minlength=domain_count).astype(np.float64)
    for slot in missing:
        size = int(sizes[slot])
        costs = rank_costs(hashes, weights, slot)
        taken = np.zeros(domain_count, dtype=bool)
        taken[domains[assigned[slot][assigned[slot] >= 0]]] = True
        outstanding[~taken] -= size
        for place in np.flatnonzero(assigned[slot] < 0).tolist():
            allowed = ~taken[domains] & (loads + size <= capacities)
            server = _choose(allowed, size, costs, domains, loads, shares, room, outstanding)
            if server < 0:
                raise FailedPreconditionError(
                    f"capacity: slot {slot} of {size:,} bytes fits on no server of a free failure domain; "
                    f"free bytes there: {_free(ids, taken, domains, capacities - loads)}"
                )
            assigned[slot, place] = server
            loads[server] += size
            room[domains[server]] -= size
            taken[domains[server]] = True


def _choose(
    allowed: NDArray[np.bool_],
    size: int,
    costs: FloatArray,
    domains: IntArray,
    loads: IntArray,
    shares: FloatArray,
    room: FloatArray,
    outstanding: FloatArray,
) -> int:
    """Return the best server for a replica: see the planner's step 2; -1 if none is allowed."""
    if not allowed.any():
        return -1
    if size == 0:  # bytes cannot say where it goes: by rank alone, such slots spread by weight
        used = allowed & (shares > 0)
        return int(np.argmin(np.where(used if used.any() else allowed, costs, np.inf)))
    urgent = allowed & (room > outstanding + TOLERANCE * size)[domains]
    if urgent.any():
        allowed = urgent
    below = allowed & (loads + size <= shares + 1e-6 * shares)
    if below.any():
        return int(np.argmin(np.where(below, costs, np.inf)))
    excess = (loads + size - shares) / np.maximum(shares, 1.0)
    return int(np.argmin(np.where(allowed, excess, np.inf)))


def _free(ids: Sequence[str], taken: NDArray[np.bool_], domains: IntArray, free: IntArray) -> str:
    rows = [f"{ids[s]} {int(free[s]):,}" for s in range(len(ids)) if not taken[domains[s]]]
    return ", ".join(rows[:10]) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")


def server_loads(assigned: IntArray, sizes: IntArray, servers: int) -> IntArray:
    """Return the bytes on each server, int64, shape [servers]."""
    loads = np.zeros(servers, dtype=np.int64)
    present = assigned >= 0
    np.add.at(loads, assigned[present], np.broadcast_to(sizes[:, None], assigned.shape)[present])
    return loads


def balance_bytes(
    assigned: IntArray, sizes: IntArray, domains: IntArray, capacities: IntArray, shares: FloatArray
) -> None:
    """Move replicas from servers above their share to servers below, while that makes the total excess smaller.

    Only servers that are off their share by more than `TOLERANCE` start a move. Ends when no such move is left.

    Cost: a pass looks at every slot of servers above their share; few passes.
    """
    loads = server_loads(assigned, sizes, len(shares))
    for _ in range(_MAX_PASSES):
        if not _balance_pass(assigned, sizes, domains, capacities, shares, loads):
            return


def _balance_pass(
    assigned: IntArray,
    sizes: IntArray,
    domains: IntArray,
    capacities: IntArray,
    shares: FloatArray,
    loads: IntArray,
) -> bool:
    moved = False
    excess = loads - shares
    for donor in np.lexsort((np.arange(len(shares)), -excess)).tolist():
        if loads[donor] <= shares[donor]:
            break
        slots, places = np.nonzero(assigned == donor)
        order = np.lexsort((slots, -sizes[slots]))
        for slot, place in zip(slots[order].tolist(), places[order].tolist(), strict=True):
            surplus = float(loads[donor] - shares[donor])
            is_over = surplus > TOLERANCE * shares[donor]
            receivers = (loads < shares) if is_over else (loads < shares * (1 - TOLERANCE))
            if surplus <= 0 or sizes[slot] == 0 or not receivers.any():
                break
            size = float(sizes[slot])
            others = [int(domains[s]) for s in assigned[slot].tolist() if s != donor]
            receivers = receivers & ~np.isin(domains, others) & (loads + size <= capacities)
            relief = min(surplus, size)
            gain = np.where(receivers, relief - np.maximum(0.0, loads + size - shares), -np.inf)
            best = int(np.argmax(np.where(gain >= _MIN_GAIN * size, gain + 1e-9 * (shares - loads), -np.inf)))
            if gain[best] >= _MIN_GAIN * size:
                assigned[slot, place] = best
                loads[donor] -= sizes[slot]
                loads[best] += sizes[slot]
                moved = True
    return moved


def balance_first(assigned: IntArray, sizes: IntArray, shares: FloatArray) -> None:
    """Reorder replicas within slots until the bytes of first replicas are even too, as far as such swaps can."""
    replicas = assigned.shape[1]
    goal = shares / replicas
    firsts = server_loads(assigned[:, :1], sizes, len(shares)).astype(np.float64)
    order = [slot for slot in np.lexsort((np.arange(len(sizes)), -sizes)).tolist() if sizes[slot] > 0]
    for _ in range(_MAX_PASSES if replicas > 1 else 0):
        moved = False
        for slot in order:
            row = assigned[slot].tolist()
            donor, size = row[0], float(sizes[slot])
            surplus = firsts[donor] - goal[donor]
            if surplus <= 0:
                continue
            gains = [min(surplus, size) - max(0.0, firsts[s] + size - goal[s]) for s in row[1:]]
            best = max(range(len(gains)), key=gains.__getitem__)
            if gains[best] > _MIN_GAIN * size:
                other = row[best + 1]
                assigned[slot, 0], assigned[slot, best + 1] = other, donor
                firsts[donor] -= size
                firsts[other] += size
                moved = True
        if not moved:
            return
