"""What a router has counted, made by hand: for tests of metrics and `tessera status`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batching.policy_file import Policy
from placement.records import MemberRecord, MemberState, OperationRecord, OperationState, PackageRef, Placement
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from placement.view import ViewReading, ViewStatus
from router.catalog import VersionState, VersionStatus
from router.load_statistics import LoadRecorder, LoadStatistics
from router.request_log import RequestLogStatistics
from router.statistics import LeaseStatistics, RegionStatistics, RouterStatistics, TrafficStatistics
from tessera.certificates import Validity
from tessera.errors import Code

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


def method_stats(
    latencies: Mapping[int, int], codes: Mapping[str, int], examples: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Return what `Predictor.stats` has of a method and an entry point; `latencies` and `examples` by cell."""
    total = sum(latencies.values())
    return {
        "codes": dict(codes),
        "latency_micros": _cells(latencies, 34, total * 50.0),
        "runtime_micros": _cells(latencies, 34, total * 40.0),
        "stages_micros": {stage: _cells({3: total}, 26, total * 4.0) for stage in ("decode", "run", "encode")},
        "examples": _cells(examples or {}, 16, sum(n << cell >> 1 for cell, n in (examples or {}).items())),
    }


def _cells(counts: Mapping[int, int], cells: int, total: float) -> dict[str, Any]:
    return {"counts": [counts.get(i, 0) for i in range(cells)], "sum": total, "count": sum(counts.values())}


def _loads() -> LoadStatistics:
    recorder = LoadRecorder()
    recorder.loaded("ranker", Path("/models/ranker/1"), Code.OK, 2.5)
    recorder.loaded("ranker", Path("/models/ranker/3"), Code.DATA_LOSS, 0.25)
    recorder.warmed_up(Path("/models/ranker/1"), Code.OK, 0.75, 20)
    return recorder.read()


def view_reading() -> ViewReading:
    """Return what is known of a cluster with one model, two seconds after etcd was last heard of."""
    placement = Placement("ranker", 7, 1, 2, ("server-0",), ((0,), (0,)), (PackageRef(2, "0" * 64),))
    operation = OperationRecord("o", "reshard", OperationState.PREPARING, 7, 8, "d", "ana")
    models = {"ranker": ModelView(placement=placement, operation=operation), "new": ModelView()}
    member = MemberRecord("i", "h:1", "b", MemberState.SERVING, "d", 10, 5, {"ranker": 7})
    snapshot = ClusterSnapshot(
        revision=9,
        models=models,
        members={"server-0": MemberView(member, live=True)},
        problems={"tessera/x": "got 3 bytes, expected JSON"},
    )
    return ViewReading(snapshot, ViewStatus(True, 2.0, {"start": 1, "periodic": 4}, 1))


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
            "run_again": 2,
            "awaiting_newer": 1,
            "models": {"ranker": {1: 10, 2: 400}},
            "traffic": {
                "ranker": {
                    "1": {"chosen": 10, "rerouted": 0},
                    "canary": {"chosen": 90, "rerouted": 0},
                    "3": {"chosen": 0, "rerouted": 5},
                }
            },
            "methods": {
                "ranker": {
                    "Predict": {
                        "GRPC": method_stats({0: 300, 12: 6}, {"OK": 306, "UNAVAILABLE": 7}),
                        "REST": method_stats({13: 40}, {"OK": 40, "INVALID_ARGUMENT": 2}),
                    },
                    "Regress": {"GRPC": method_stats({5: 10}, {"OK": 10}, examples={1: 2, 4: 8})},
                    "MultiInference": {"GRPC": method_stats({33: 1}, {"OK": 1}, examples={2: 1})},
                },
                "(unknown)": {"Predict": {"GRPC": method_stats({}, {"NOT_FOUND": 2})}},
            },
        },
        fanout={
            "lookups": 400,
            "subrequests": 800,
            "rpcs": 500,
            "merged": 400,
            "retries": 2,
            "hedges": 5,
            "failures": 1,
            "ejections": 3,
            "servers": {
                "server-0": {
                    "subrequests": 800,
                    "rpcs": 500,
                    "failures": 1,
                    "in_flight": 2,
                    "suspect": False,
                    "ejected": True,
                    "avoided": False,
                    "ejections": 3,
                }
            },
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
        traffic=TrafficStatistics(
            shadows={"ranker": {"equal": 8, "different": 1, "failed": 2, "dropped": 3, "in_flight": 1}},
            logs={"ranker": RequestLogStatistics(written=30, dropped=4, failed=5)},
        ),
        states={
            "ranker": {
                1: VersionStatus(VersionState.AVAILABLE),
                2: VersionStatus(VersionState.LOADING),
                3: VersionStatus(VersionState.END),
            }
        },
        loads=_loads(),
        is_ready=True,
        view=view_reading(),
        leases=LeaseStatistics(panics=1, panicking=frozenset({"ranker"})),
        memory_limit_bytes=2 << 30,
        certificate=Validity(1_800_000_000.0, 1_800_086_400.0),
    )
