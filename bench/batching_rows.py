"""What the measurements of batching say: medians, the best baseline, rows. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from bench.batching_driver import Result
from bench.report import Row
from tessera.errors import InternalError

OURS, OURS_THREADS, OURS_UNBATCHED = "tessera", "tessera_threads", "none_tessera"
"""Tessera's batching driven as its router does it, and by a thread per client as the baselines are; no batching."""

_KEEPS_UP = 0.95
"""Share of the offered rate that an answered rate must reach for its latencies to be compared."""


@dataclass(frozen=True)
class Point:
    """One contender under one load: a run, or the medians of several.

    Attributes:
        rate: Good answers per second.
        offered: Arrivals per second; of a closed loop its answers.
        p50_us: Median latency of good answers, microseconds; in an open loop since the moment of the planned arrival.
        p99_us: 99th percentile.
        cpu_us: CPU time per good answer, with what sends and checks.
        rows_per_batch: Of Tessera; else 0.
    """

    rate: float
    offered: float
    p50_us: float
    p99_us: float
    cpu_us: float
    rows_per_batch: float = 0.0

    @property
    def keeps_up(self) -> bool:
        """Whether (nearly) all that was offered was answered."""
        return self.rate >= _KEEPS_UP * self.offered


def point(name: str, result: Result, seconds: float) -> Point:
    """Return the point of a run with one load.

    Raises:
        InternalError: an answer was wrong, failed, or there was none.
    """
    load = result.load
    if load["wrong"] or load["errors"] or not load["good"]:
        raise InternalError(f"{name}: got {load}, expected good answers only")
    return Point(
        load["good_per_s"],
        load["offered"] / seconds,
        load["p50_us"],
        load["p99_us"],
        result.cpu_us,
        result.rows_per_batch,
    )


def median(points: Sequence[Point]) -> Point:
    """Return the median of each field by itself."""
    return Point(*(statistics.median(getattr(point, field.name) for point in points) for field in fields(Point)))


def fastest(points: Mapping[str, Point], count: int) -> list[str]:
    """Return the names of the `count` with the highest rates, and of those with the lowest medians among the rest."""
    by_rate = sorted(points, key=lambda name: -points[name].rate)
    by_p50 = sorted(by_rate[count:], key=lambda name: points[name].p50_us)
    return by_rate[:count] + by_p50[: count // 2]


def most_often(names: Iterable[Sequence[str]]) -> list[str]:
    """Return all names, those first that are in most of the sequences; among equals the one that was seen first."""
    counts = Counter(name for some in names for name in some)
    return [name for name, _ in counts.most_common()]


def baselines(points: Mapping[str, Point]) -> dict[str, Point]:
    """Return the points of everything but Tessera's batching."""
    return {name: point for name, point in points.items() if name not in (OURS, OURS_THREADS)}


def closed_rows(
    workload: str, clients: int, points: Mapping[str, Point], *, swept: Mapping[str, Point], goal: float = 1.0
) -> list[Row]:
    """Return the rows of one closed loop: in the same driving as the baseline, and in the router's.

    Args:
        workload: Its name.
        clients: Of the loop.
        points: Contender → its medians.
        swept: Contender → its short run, of all; for the details.
        goal: Of the ratio to the best baseline, in the same driving.
    """
    others = baselines(points)
    best = max(others, key=lambda name: others[name].rate)
    detail = {
        **_fields("threads.", points[OURS_THREADS]),
        **_fields("events.", points[OURS]),
        **_fields("best.", others[best]),
        **{f"swept.{name}.{key}": value for name, point in swept.items() for key, value in _short(point).items()},
    }
    name = f"batch_{workload}_c{clients}"
    unit = f"requests/s, {clients} client{'s' * (clients > 1)}"
    baseline = f"{best}, best of {len(baselines(swept))}"
    rows = [
        Row(name, points[OURS_THREADS].rate, f"{unit}, a thread each", baseline, others[best].rate, goal, detail=detail)
    ]
    rows.append(Row(f"{name}_events", points[OURS].rate, f"{unit}, 2 event threads", baseline, others[best].rate))
    return rows


def open_rows(
    workload: str,
    load: str,
    rate: float,
    points: Mapping[str, Point],
    *,
    p50_goal: float | None = None,
    p99_goal: float | None = None,
) -> list[Row]:
    """Return the rows of one open loop: p50 and p99 against the best baseline that keeps up, each by itself.

    If no baseline keeps up, those that answer most are the best.
    """
    others = baselines(points)
    good = {name: point for name, point in others.items() if point.keeps_up}
    if not good:
        most = max(others, key=lambda name: others[name].rate)
        good = {most: others[most]}
    detail = {
        f"{name}.{key}": value
        for name, point in points.items()
        for key, value in {**_short(point), "p99_us": point.p99_us, "offered": round(point.offered, 1)}.items()
    }
    rows = []
    for key, suffix, goal in (("p50_us", "", p50_goal), ("p99_us", "_p99", p99_goal)):
        best = min(good, key=lambda name: getattr(good[name], key))
        rows.append(
            Row(
                name=f"batch_{workload}_{load}{suffix}",
                value=getattr(points[OURS_THREADS], key),
                unit=f"µs {key[:3]} at {rate:.0f}/s",
                baseline=f"{best}, best of {len(others)}" + ("" if good[best].keeps_up else " (does not keep up)"),
                baseline_value=getattr(good[best], key),
                goal=goal,
                higher_is_better=False,
                detail=detail,
            )
        )
    return rows


def overhead_row(
    name: str, swept: Mapping[str, Point], points: Mapping[str, Point], *, goal_us: float, steps: float = 1.0
) -> Row:
    """Return what batching adds to one request at a time, for each of `steps`, against TensorFlow's functions."""
    plain = _least_p50(swept, (name for name in swept if name.startswith("none_session")))
    function = _least_p50(swept, (name for name in swept if name.startswith(("function_", "cell_"))))
    added_us = points[OURS_THREADS].p50_us - points[OURS_UNBATCHED].p50_us
    return Row(
        name=name,
        value=added_us / steps,
        unit="µs more at p50 than unbatched, 1 client" + (", per step" if steps != 1.0 else ""),
        baseline="TensorFlow's batch function, best p50",
        baseline_value=(function - plain) / steps,
        goal=goal_us,
        goal_on="value",
        higher_is_better=False,
        detail={
            "unbatched_p50_us": points[OURS_UNBATCHED].p50_us,
            "session_p50_us": plain,
            "function_p50_us": function,
        },
    )


def capacity(points: Iterable[Mapping[str, Point]]) -> float:
    """Return the highest rate of any baseline in any closed loop, requests per second."""
    return max(point.rate for by_name in points for point in baselines(by_name).values())


def _least_p50(points: Mapping[str, Point], names: Iterable[str]) -> float:
    return min(points[name].p50_us for name in names)


def _short(point: Point) -> dict[str, float]:
    return {"rate": round(point.rate, 1), "p50_us": round(point.p50_us, 1)}


def _fields(prefix: str, point: Point) -> dict[str, float]:
    return {f"{prefix}{field.name}": round(getattr(point, field.name), 2) for field in fields(point)}
