"""What a router has counted, made by hand: for tests of metrics and `tessera status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batching.policy_file import Policy
from router.statistics import RegionStatistics, RouterStatistics

CELLS = 28


def histogram(counts: Mapping[int, int], total: int) -> dict[str, Any]:
    """Return a native power histogram: `counts` by cell, `total` of the values."""
    return {
        "counts": [counts.get(cell, 0) for cell in range(CELLS)],
        "sum": total,
        "count": sum(counts.values()),
    }


def region_stats(**changes: Any) -> dict[str, Any]:
    """Return what `Graph.batching_stats` has of a region: 100 batches of 8 rows and 25 of 32, some of them padding."""
    stats: dict[str, Any] = {
        "tasks": 400,
        "rows": 1500,
        "batches": 125,
        "padding_rows": 100,
        "padding_elements": 500,
        "elements": 2000,
        "inline_batches": 20,
        "batch_sizes": {8: 100, 32: 25},
        "close_reasons": {"idle": 90, "full": 25, "timeout": 4, "deadline": 3, "all_in_loop": 2, "bisect": 1},
        "queue_delay_micros": histogram({0: 200, 7: 150, 12: 50}, 120_000),
        "execution_micros": histogram({10: 100, 11: 25}, 105_000),
        "rejected_rows_bound": 7,
        "rejected_bytes_bound": 2,
        "rejected_too_large": 1,
        "expired_queued": 3,
        "expired_running": 1,
        "cancelled": 5,
        "failed_batches": 2,
        "bisected_batches": 1,
        "enqueued_rows": 12,
        "enqueued_bytes": 4096,
        "in_loop": 0,
        "device_ns": 105_000_000,
    }
    assert changes.keys() <= stats.keys()
    return stats | changes


def router_statistics() -> RouterStatistics:
    """Return one reading of a router with two regions, of which one has had no request."""
    nothing: dict[str, Any] = {
        name: {} if isinstance(value, dict) else 0 for name, value in region_stats().items() if name != "close_reasons"
    }
    nothing |= {
        "close_reasons": dict.fromkeys(region_stats()["close_reasons"], 0),
        "queue_delay_micros": histogram({}, 0),
        "execution_micros": histogram({}, 0),
    }
    return RouterStatistics(
        uptime_s=10.0,
        predictor={
            "requests": 410,
            "errors": {"INVALID_ARGUMENT": 4, "UNAVAILABLE": 7},
            "in_flight": 3,
            "models": {"ranker": {1: 10, 2: 400}},
        },
        fanout={
            "lookups": 400,
            "subrequests": 800,
            "rpcs": 500,
            "merged": 400,
            "retries": 2,
            "hedges": 5,
            "failures": 1,
            "servers": {"server-0": {"subrequests": 800, "rpcs": 500, "failures": 1, "in_flight": 2, "suspect": False}},
        },
        regions=(
            RegionStatistics(
                model="ranker",
                version=2,
                region="mlp",
                signatures=("serving_default",),
                is_in_loop=False,
                refused="",
                policy=Policy(max_batch_size=32, allowed_batch_sizes=(8, 32), batch_timeout_micros=500),
                stats=region_stats(),
            ),
            RegionStatistics(
                model="words",
                version=1,
                region="lstm/cell",
                signatures=("decode", "encode"),
                is_in_loop=True,
                refused="Sum mixes rows",
                policy=Policy(),
                stats=nothing,
            ),
        ),
        lanes={
            "cpu:0": {
                "busy_ns": 2_500_000_000,
                "since_ns": 1_000_000_000,
                "now_ns": 11_000_000_000,
                "in_flight": 1,
                "in_flight_limit": 2,
                "timer_wakeups": 4,
            }
        },
        unused_policies=("model 'rankr' region '*'",),
    )
