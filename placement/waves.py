"""Splits a change of placement into waves, so that no server ever has to hold more than it can. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from placement.records import Placement
from tessera.errors import FailedPreconditionError

MAX_WAVES = 64


def peak_bytes(
    before: Placement, after: Placement, sizes_before: Sequence[int], sizes_after: Sequence[int], both: Sequence[int]
) -> dict[str, int]:
    """Return what each server holds while `after` is staged beside `before`.

    Args:
        before: what is served.
        after: what is to be, with equally many slots.
        sizes_before: bytes of each slot in what `before` serves.
        sizes_after: bytes of each slot in what `after` serves.
        both: bytes of each slot in the two together; what they share counts once.
    """
    peak: dict[str, int] = {}
    for slot, (old, new) in enumerate(zip(before.slot_servers, after.slot_servers, strict=True)):
        had, has = {before.servers[p] for p in old}, {after.servers[p] for p in new}
        for server in had | has:
            if server not in has:
                size = sizes_before[slot]
            elif server not in had:
                size = sizes_after[slot]
            else:
                size = both[slot]
            peak[server] = peak.get(server, 0) + size
    return peak


def split(
    current: Placement,
    target: Placement,
    sizes: Sequence[int],
    limits: Mapping[str, int],
    *,
    wave_bytes: int | None = None,
) -> tuple[Placement, ...]:
    """Return placements that lead from `current` to `target`, each staged beside the one before within `limits`.

    Slots move as a whole, largest first; a wave takes every slot that still fits. Epochs follow `target`'s.

    Args:
        current: what is served.
        target: what is to be served in the end, with the same versions.
        sizes: bytes of each slot.
        limits: server → bytes of this model that it can hold; servers that are missing have no limit.
        wave_bytes: how much one wave may move at most; a slot that is larger is a wave of its own.

    Raises:
        FailedPreconditionError: no order of waves fits, or more than `MAX_WAVES` are needed; names a server.
    """
    rows, goal = _names(current), _names(target)
    held = _bytes(rows, sizes)
    left = sorted((s for s in range(len(sizes)) if rows[s] != goal[s]), key=lambda slot: (-sizes[slot], slot))
    if current.replicas != target.replicas or not left:
        return _one(current, target, sizes, limits)
    waves: list[Placement] = []
    while left:
        peak, freed, moved = dict(held), dict.fromkeys(held, 0), 0
        waiting: list[int] = []
        for slot in left:
            gains = set(goal[slot]) - set(rows[slot])
            size = sizes[slot] * len(gains)
            fits = all(peak.get(s, 0) + sizes[slot] <= limits.get(s, peak.get(s, 0) + sizes[slot]) for s in gains)
            if not fits or (wave_bytes is not None and moved and moved + size > wave_bytes):
                waiting.append(slot)
                continue
            moved += size
            for server in gains:
                peak[server] = peak.get(server, 0) + sizes[slot]
            for server in set(rows[slot]) - set(goal[slot]):
                freed[server] = freed.get(server, 0) + sizes[slot]
            rows[slot] = goal[slot]
        if len(waiting) == len(left):
            slot = left[0]
            server = next(s for s in goal[slot] if held.get(s, 0) + sizes[slot] > limits.get(s, 1 << 62))
            raise FailedPreconditionError(
                f"capacity: server {server} holds {held.get(server, 0):,} bytes of the model and can hold "
                f"{limits[server]:,}; there is no room to move slot {slot} of {sizes[slot]:,} bytes there first"
            )
        if len(waves) == MAX_WAVES:
            raise FailedPreconditionError(f"the change needs more than {MAX_WAVES} waves; expected at most that many")
        left = waiting
        waves.append(_placement(target, rows, target.epoch + len(waves)))
        held = {server: size - freed.get(server, 0) for server, size in peak.items()}
    waves[-1] = replace(target, epoch=waves[-1].epoch)
    return tuple(waves)


def _one(
    current: Placement, target: Placement, sizes: Sequence[int], limits: Mapping[str, int]
) -> tuple[Placement, ...]:
    """A change of the number of replicas cannot go slot by slot: all slots have equally many."""
    for server, size in peak_bytes(current, target, sizes, sizes, sizes).items():
        if size > limits.get(server, size):
            raise FailedPreconditionError(
                f"capacity: server {server} would hold {size:,} bytes of the model meanwhile, it can hold "
                f"{limits[server]:,}"
            )
    return (target,)


def _names(placement: Placement) -> list[tuple[str, ...]]:
    return [tuple(placement.servers[position] for position in row) for row in placement.slot_servers]


def _bytes(rows: Sequence[Sequence[str]], sizes: Sequence[int]) -> dict[str, int]:
    held: dict[str, int] = {}
    for row, size in zip(rows, sizes, strict=True):
        for server in row:
            held[server] = held.get(server, 0) + size
    return held


def _placement(like: Placement, rows: Sequence[Sequence[str]], epoch: int) -> Placement:
    servers = tuple(sorted({server for row in rows for server in row}))
    position = {server: index for index, server in enumerate(servers)}
    slot_servers = tuple(tuple(position[server] for server in row) for row in rows)
    return replace(like, epoch=epoch, servers=servers, slot_servers=slot_servers)
