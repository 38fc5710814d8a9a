"""Another number of slots for a model that is served. Pure.

A bucket's slot is `hash % slots`. So with a multiple of the present number each slot falls apart into equal ones that
start where it was, and with a divisor slots join: nothing has to be cut anew, and little has to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from placement.document import MAX_SLOTS
from placement.records import Placement
from tessera.errors import InvalidArgumentError


def check_slots(slots: int, now: int) -> None:
    """Refuse a number of slots that `now` slots cannot become.

    Raises:
        InvalidArgumentError: it is neither a multiple nor a divisor, or out of range.
    """
    if not 1 <= slots <= MAX_SLOTS:
        raise InvalidArgumentError(f"--relayout: got {slots}, expected 1 to {MAX_SLOTS}")
    if max(slots, now) % min(slots, now):
        raise InvalidArgumentError(f"--relayout: got {slots}, expected a multiple or a divisor of the present {now}")


def expanded(placement: Placement, slots: int) -> Placement:
    """Return what is the same placement with `slots` slots, a multiple of its own number."""
    if slots == placement.slots:
        return placement
    times = slots // placement.slots
    return replace(placement, slots=slots, slot_servers=placement.slot_servers * times)


def joined(placement: Placement, slots: int, sizes: Sequence[int]) -> Placement:
    """Return a placement with `slots` slots, a divisor of its own number, that moves little from it.

    Each slot goes to the servers that hold most bytes of what it is made of.

    Args:
        placement: what is there.
        slots: how many there are to be.
        sizes: bytes of each slot of `placement`.
    """
    rows = []
    for slot in range(slots):
        weights: dict[tuple[int, ...], int] = {}
        for part in range(slot, placement.slots, slots):
            row = placement.slot_servers[part]
            weights[row] = weights.get(row, 0) + sizes[part] + 1
        rows.append(max(sorted(weights), key=lambda row: weights[row]))
    used = sorted({position for row in rows for position in row})
    number = {position: index for index, position in enumerate(used)}
    return replace(
        placement,
        slots=slots,
        servers=tuple(placement.servers[position] for position in used),
        slot_servers=tuple(tuple(number[position] for position in row) for row in rows),
    )


def joined_sizes(sizes: Sequence[int], slots: int) -> list[int]:
    """Return the bytes of each of `slots` slots, a divisor of their number."""
    return [sum(sizes[slot::slots]) for slot in range(slots)]
