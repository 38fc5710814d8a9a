"""CRC-32C (Castagnoli), as TensorFlow's files carry it, at a few hundred MB/s with numpy.

A long input is cut into equal lanes that advance together, two bytes a step. The lanes' checksums are then joined
pairwise: a CRC is linear over GF(2), so appending n bytes is a 32 × 32 bit matrix that depends only on n.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_LANES = 4096
_MASK_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF


def crc32c(data: bytes | memoryview | NDArray[Any], crc: int = 0) -> int:
    """Return the checksum of `data`, or of what has the checksum `crc` followed by `data`. Costs 1 MB of memory."""
    values = np.frombuffer(data, np.uint8)
    lane_bytes = values.size // _LANES // 2 * 2
    state = crc ^ _ALL
    if lane_bytes >= 64:
        head = values[: lane_bytes * _LANES]
        parts = _lanes(head.reshape(_LANES, lane_bytes))
        state = _apply(_shift(head.size), state) ^ parts
        values = values[head.size :]
    table = _byte_table()
    for byte in values.tobytes():
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ _ALL


def unmask(masked: int) -> int:
    """Return the checksum that a file of TensorFlow or LevelDB stores as `masked`."""
    rotated = (masked - _MASK_DELTA) & _ALL
    return ((rotated >> 17) | (rotated << 15)) & _ALL


def _lanes(rows: NDArray[np.uint8]) -> int:
    """Return the state, from 0, after all rows one after the other. `rows` is uint8, [power of two, even]."""
    table = _word_table()
    states = np.zeros(rows.shape[0], np.uint32)
    words = rows.view("<u2")
    for start in range(0, words.shape[1], 64):  # transposed in pieces, so that each step reads memory in order
        for column in np.ascontiguousarray(words[:, start : start + 64].T):
            states = table[(states ^ column) & 0xFFFF] ^ (states >> 16)
    length = rows.shape[1]
    while states.size > 1:
        states = _apply_many(_shift(length), states[0::2]) ^ states[1::2]
        length *= 2
    return int(states[0])


@cache
def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


@cache
def _word_table() -> NDArray[np.uint32]:
    """Return the state, from 0, after two bytes."""
    single = np.array(_byte_table(), np.uint32)
    words = np.arange(1 << 16, dtype=np.uint32)
    state = single[words & 0xFF]
    result: NDArray[np.uint32] = single[(state ^ (words >> 8)) & 0xFF] ^ (state >> 8)
    return result


@lru_cache(maxsize=256)
def _shift(length: int) -> tuple[int, ...]:
    """Return the matrix, as 32 columns, that appends `length` zero bytes to a state."""
    table = _byte_table()
    if length == 1:
        columns = []
        for bit in range(32):
            state = 1 << bit
            columns.append(table[state & 0xFF] ^ (state >> 8))
        return tuple(columns)
    if length == 0:
        return tuple(1 << bit for bit in range(32))
    half = _shift(length // 2)
    double = tuple(_apply(half, column) for column in half)
    return tuple(_apply(_shift(1), column) for column in double) if length % 2 else double


def _apply(matrix: tuple[int, ...], state: int) -> int:
    result = 0
    for bit, column in enumerate(matrix):
        if state >> bit & 1:
            result ^= column
    return result


def _apply_many(matrix: tuple[int, ...], states: NDArray[np.uint32]) -> NDArray[np.uint32]:
    result = np.zeros_like(states)
    for bit, column in enumerate(matrix):
        result ^= np.where(states >> np.uint32(bit) & np.uint32(1), np.uint32(column), np.uint32(0)).astype(np.uint32)
    return result
