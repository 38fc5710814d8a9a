"""How many bytes each server should hold: by weight, within capacity, no domain more than one copy of everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tessera.errors import FailedPreconditionError

_NAMED = 10


def fair_shares(
    ids: Sequence[str],
    weights: Sequence[int],
    capacities: Sequence[int],
    domains: Sequence[int],
    total_bytes: int,
    replicas: int,
) -> NDArray[np.float64]:
    """Return the bytes that each server should hold; they add up to `replicas * total_bytes`.

    Args:
        ids: for messages.
        weights: ≥ 1.
        capacities: bytes.
        domains: number of each server's failure domain.
        total_bytes: of one copy of everything; each domain can hold at most that, since it holds a slot at most once.
        replicas: how many copies; at most the number of domains.

    Raises:
        FailedPreconditionError: the servers cannot hold it; names needed and available bytes, and the servers.

    Cost: about 200 passes over the servers.
    """
    members: dict[int, list[int]] = {}
    for server, domain in enumerate(domains):
        members.setdefault(domain, []).append(server)
    needed = replicas * total_bytes
    limits = {domain: min(total_bytes, sum(capacities[s] for s in group)) for domain, group in members.items()}
    if sum(limits.values()) < needed:
        listed = [f"{ids[s]} {capacities[s]:,}" for s in range(len(ids))]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        raise FailedPreconditionError(
            f"capacity: {replicas} replicas of {total_bytes:,} bytes need {needed:,} bytes, but the servers can hold "
            f"{sum(limits.values()):,} (bytes of each: {', '.join(listed[:_NAMED])}{more}; "
            "a failure domain holds each slot at most once)"
        )

    def level(group: Sequence[int], bytes_per_weight: float) -> float:
        return math.fsum(min(capacities[s], bytes_per_weight * weights[s]) for s in group)

    everywhere = _solve(
        lambda x: math.fsum(min(limits[domain], level(group, x)) for domain, group in members.items()), needed, needed
    )
    shares = np.zeros(len(ids), dtype=np.float64)
    for domain, group in members.items():
        per_weight = everywhere
        if level(group, everywhere) > limits[domain]:
            per_weight = _solve(partial(level, group), limits[domain], needed)
        for server in group:
            shares[server] = min(capacities[server], per_weight * weights[server])
    return shares


def _solve(function: Callable[[float], float], wanted: float, high: float) -> float:
    """Return the smallest x in [0, high], up to rounding, at which the growing `function` reaches `wanted`."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        if function(middle) < wanted:
            low = middle
        else:
            high = middle
    return high
