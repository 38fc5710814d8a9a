"""Decides whether a region is worth batching, from what it takes for 1, 8 and 32 rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from batching.probe import Probe

# What the pair costs a request that is alone, by design of the scheduler.
STEP_OVERHEAD_S = 30e-6
LOOP_STEP_OVERHEAD_S = 40e-6
# A region must take this many times the overhead, or the pair costs more than it can save.
MIN_OVERHEADS = 3
# Eight rows together must take less than this many times one row.
MAX_GROWTH = 4.0
ROW_COUNTS = (1, 8, 32)

_MIN_RUNS = 3
_MAX_RUNS = 200
_BUDGET_S = 0.25
_SLOW_S = 0.5


@dataclass(frozen=True)
class Cost:
    """Measured time of a region without the call around it.

    Attributes:
        seconds: rows → the fastest tenth of many runs: what else the machine does only adds to them. For 1 and 8 rows
            at least.
    """

    seconds: dict[int, float]


@dataclass(frozen=True)
class Verdict:
    """Whether to insert a region, with the reason."""

    insert: bool
    reason: str


def measure(probe: Probe, *, now_s: Callable[[], float] = time.perf_counter) -> Cost:
    """Run the region for about a second, or a few times if it takes longer, and return what it takes.

    Raises:
        FailedPreconditionError: the region does not run on made-up rows.
    """
    seconds: dict[int, float] = {}
    for rows in ROW_COUNTS:
        if rows > 8 and seconds[8] > _SLOW_S:  # the decision is made of 1 and 8 rows, and this would take long
            break
        inputs = probe.rows(rows, seed=rows)
        for _ in range(2):  # the first calls plan, allocate and fill caches
            probe.run(inputs)
            probe.idle(inputs)
        working: list[float] = []
        idle: list[float] = []
        until_s = now_s() + _BUDGET_S
        while len(working) < _MIN_RUNS or (len(working) < _MAX_RUNS and now_s() < until_s):
            started_s = now_s()
            probe.run(inputs)
            between_s = now_s()
            probe.idle(inputs)
            working.append(between_s - started_s)
            idle.append(now_s() - between_s)
        seconds[rows] = max(_fast(working) - _fast(idle), 1e-9)
    return Cost(seconds)


def _fast(values: list[float]) -> float:
    return sorted(values)[len(values) // 10]


def decide(cost: Cost, *, in_loop: bool, remote_lookups: int = 0) -> Verdict:
    """Return whether batching pays.

    Args:
        cost: measured.
        in_loop: whether the region is the body of a loop, where each step pays the overhead.
        remote_lookups: gathers whose rows will come from servers: one RPC for many requests always pays.
    """
    one, eight = cost.seconds[1], cost.seconds[8]
    overhead_s = LOOP_STEP_OVERHEAD_S if in_loop else STEP_OVERHEAD_S
    if remote_lookups:
        return Verdict(True, f"looks rows up on servers ({remote_lookups} tables)")
    if one < MIN_OVERHEADS * overhead_s:
        return Verdict(
            False, f"too small: one row takes {one * 1e6:.0f} µs, expected {MIN_OVERHEADS * overhead_s * 1e6:.0f} µs"
        )
    if eight >= MAX_GROWTH * one:
        return Verdict(False, f"gains too little: eight rows take {eight / one:.1f} times as long as one")
    return Verdict(True, f"eight rows take {eight / one:.1f} times as long as one")
