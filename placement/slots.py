"""Row → bucket → slot, and which servers a slot likes best: fixed hashes that every language computes alike.

`tests/golden/slots.json` holds vectors for both. Nothing here may ever change: stored placements depend on it.

The rank of a server for a slot is weighted rendezvous hashing. Its cost is `-ln(u) / weight`, smallest first, equal
costs by server id. `u` and the logarithm are defined so that IEEE-754 double arithmetic (no fused multiply-add)
gives the same bits everywhere, which a library's `log` does not promise:

    h = xxh64(xxh64(server id, UTF-8) as 8 bytes LE + slot as 8 bytes LE)         (seed 0)
    u = ((h >> 11) + 0.5) / 2**53                                                 0 < u < 1, exact
    u = m * 2**e with 0.5 <= m < 1                                                (frexp, exact)
    t = (m - 1) / (m + 1);  s = t * t
    ln(u) = e * LN2 + 2 * t * (1 + s * (1/3 + s * (1/5 + ... + s * (1/17))))      Horner, from 1/17 outwards
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Hashes = NDArray[np.uint64]

SLOTS: Final = 4096
SLOTS_ABOVE_64_SERVERS: Final = 16384

_LN2 = 0.6931471805599453
_COEFFICIENTS = tuple(1.0 / k for k in range(17, 0, -2))

# Constants and steps of xxh64 for an input of 16 bytes (two lanes).
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = (1 << 64) - 1


def default_slots(servers: int) -> int:
    """Return how many slots a new model gets in a cluster of `servers`."""
    return SLOTS if servers <= 64 else SLOTS_ABOVE_64_SERVERS


def slot_of(table: str, bucket: int, slots: int) -> int:
    """Return the slot of a bucket, in [0, slots).

    Args:
        table: name of the table.
        bucket: 0 ≤ bucket < 2**64.
        slots: ≥ 1.
    """
    return xxhash.xxh64_intdigest(table.encode() + b"\0" + struct.pack("<Q", bucket)) % slots


def server_hashes(server_ids: Sequence[str]) -> Hashes:
    """Return xxh64 of each id, uint64, shape [servers]: the argument of `rank_costs`."""
    return np.array([xxhash.xxh64_intdigest(server.encode()) for server in server_ids], dtype=np.uint64)


def rank_costs(hashes: Hashes, weights: FloatArray, slot: int) -> FloatArray:
    """Return the rendezvous cost of each server for `slot`; the smallest is the best.

    Args:
        hashes: from `server_hashes`, shape [servers].
        weights: > 0, shape [servers].
        slot: ≥ 0.

    Returns:
        Shape [servers], > 0.

    Cost: about 40 array operations of the length of `hashes`.
    """
    u = ((_hash_pairs(hashes, slot) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    mantissa, exponent = np.frexp(u)
    t = (mantissa - 1.0) / (mantissa + 1.0)
    square = t * t
    series = np.full_like(u, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        series = series * square + coefficient
    costs: FloatArray = -(exponent * _LN2 + 2.0 * t * series) / weights
    return costs


def rank(server_ids: Sequence[str], weights: Sequence[float], slot: int) -> list[str]:
    """Return the ids in the order in which `slot` likes them."""
    costs = rank_costs(server_hashes(server_ids), np.array(weights, dtype=np.float64), slot)
    return [server for _, server in sorted(zip(costs.tolist(), server_ids, strict=True))]


def _hash_pairs(hashes: Hashes, slot: int) -> Hashes:
    """Return xxh64 of (hash as 8 bytes LE + slot as 8 bytes LE) for every hash; unsigned arrays wrap, as it wants."""
    p1, p2, p3, p4 = (np.uint64(p) for p in (_P1, _P2, _P3, _P4))
    state = np.uint64((_P5 + 16) & _MASK) ^ (_rotate(hashes * p2, 31) * p1)
    state = _rotate(state, 27) * p1 + p4
    lane = _rotate(np.array([slot], dtype=np.uint64) * p2, 31) * p1
    state = _rotate(state ^ lane, 27) * p1 + p4
    state = (state ^ (state >> np.uint64(33))) * p2
    state = (state ^ (state >> np.uint64(29))) * p3
    result: Hashes = state ^ (state >> np.uint64(32))
    return result


def _rotate(value: Any, bits: int) -> Any:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))
