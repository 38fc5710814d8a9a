"""Checks on numbers that a region acts row by row: what the analysis showed, and what kernels really do."""

from __future__ import annotations

from typing import Any

import numpy as np

from batching.probe import Probe

Array = np.ndarray[Any, Any]

_BATCHES = (2, 3, 8)
_ROWS = max(_BATCHES)
# Relative to the largest value of an output: a larger product may add up in another order.
_TOLERANCES = {np.dtype(np.float16): 2e-2, np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
_COARSE = 5e-2  # bfloat16 and other narrow types


def check_rows(probe: Probe, *, seed: int = 0) -> str:
    """Return why a region must not be batched, "" if nothing speaks against it.

    Each of 8 made-up rows runs alone; then they run permuted, in batches of 2, 3 and 8; then one row is changed, and no
    other may change.

    Raises:
        FailedPreconditionError: the region does not run on made-up rows.
    """
    inputs = probe.rows(_ROWS, seed)
    alone = [probe.run([value[row : row + 1] for value in inputs]) for row in range(_ROWS)]
    for row, outputs in enumerate(alone):
        for position, output in enumerate(outputs):
            if output.ndim == 0 or output.shape[0] != 1:
                return f"output {position} has the shape {list(output.shape)} for one row (row {row})"
    expected = [np.concatenate([outputs[i] for outputs in alone]) for i in range(len(alone[0]))]
    order = np.random.default_rng(seed + 1).permutation(_ROWS)
    for count in _BATCHES:
        for start in range(0, _ROWS, count):
            rows = order[start : start + count]
            found = probe.run([value[rows] for value in inputs])
            for position, output in enumerate(found):
                if difference := compare(expected[position][rows], output):
                    return f"output {position} differs in a batch of {len(rows)} from the rows alone: {difference}"
    return _check_perturbed(probe, inputs, seed)


def _check_perturbed(probe: Probe, inputs: list[Array], seed: int) -> str:
    before = probe.run(inputs)
    other = probe.rows(1, seed + 2)
    changed = int(np.random.default_rng(seed + 3).integers(_ROWS))
    mixed = [np.concatenate([v[:changed], o, v[changed + 1 :]]) for v, o in zip(inputs, other, strict=True)]
    after = probe.run(mixed)
    others = [row for row in range(_ROWS) if row != changed]
    for position, (one, two) in enumerate(zip(before, after, strict=True)):
        if one[others].tobytes() != two[others].tobytes():
            return f"output {position}: other rows change with row {changed}"
    return ""


def compare(expected: Array, found: Array) -> str:
    """Return how two arrays differ, "" if they are the same but for the order of sums."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype}{list(found.shape)}, expected {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind in "biu":
        return "" if np.array_equal(expected, found) else "other values"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    one, two = expected.astype(wide), found.astype(wide)
    if not np.array_equal(np.isfinite(one), np.isfinite(two)):
        return "infinite or undefined elsewhere"
    finite = np.isfinite(one)
    largest = float(np.max(np.abs(one[finite]), initial=0.0))
    difference = float(np.max(np.abs(one[finite] - two[finite]), initial=0.0))
    tolerance = _TOLERANCES.get(expected.dtype, 1e-5 if expected.dtype.kind == "c" else _COARSE)
    return "" if difference <= tolerance * max(largest, 1e-30) else f"by {difference:.3g} of at most {largest:.3g}"
