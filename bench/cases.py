"""The cases: each measures something beside its baseline and returns rows. README.md says what the rows mean."""

from __future__ import annotations

import functools
import statistics
import subprocess
import time
from collections.abc import Callable

from bench import (
    batching,
    batching_cases,
    batching_sharded,
    goodput,
    load_interference,
    models,
    planning,
    resharding,
    rest,
    servers,
)
from bench.context import Context, say
from bench.load import Point, Target, interleaved, median
from bench.report import CONCURRENCIES, Row

_BATCHES = (1, 64)
_BUSY_POLL_US = 200
_SHARDS = (1, 2, 4)
_FULL_LOAD = CONCURRENCIES[-1]
# The floor's loop runs five rounds of this many calls per second of a run, fewer for larger batches.
_FLOOR_CALLS_PER_S = 5_000


def tiny(context: Context) -> list[Row]:
    """Predict of a model that does next to nothing, on the router alone, against a bare C++ gRPC echo."""
    request = models.request(context.tiny, "half_plus_two", models.tiny_inputs())
    with servers.running(context.log_dir) as started:
        router = started.router("half_plus_two", context.tiny)
        echo = started.echo(context.baselines.binary("echo_server"))
        predict = functools.partial(_predict_target, router, request)
        targets = {"router": predict(), "echo": _echo_target(echo, request.wire)}
        full, single = (_interleaved(context, targets, concurrency) for concurrency in (_FULL_LOAD, 1))
        predict()
    ours, bare = median(full["router"]), median(full["echo"])
    ours_c1, bare_c1 = median(single["router"]), median(single["echo"])
    return [
        Row(
            name="tiny_vs_echo",
            value=ours.requests_per_core_s,
            unit="requests per CPU second",
            baseline="bare C++ gRPC echo",
            baseline_value=bare.requests_per_core_s,
            goal=0.65,
            detail={**_detail("", ours), **_detail("echo_", bare)},
        ),
        Row(
            name="tiny_p50_us",
            value=ours_c1.p50_us,
            unit="µs at concurrency 1",
            baseline="bare C++ gRPC echo",
            baseline_value=bare_c1.p50_us,
            higher_is_better=False,
            detail={**_detail("", ours_c1), **_detail("echo_", bare_c1)},
        ),
    ]


def recommender(context: Context) -> list[Row]:
    """The recommender unsharded and over 1, 2 and 4 servers, in turn, all on one core."""
    rows = []
    repository, echo_binary = context.repository, context.baselines.binary("echo_server")
    with servers.running(context.log_dir) as started:
        places = {"unsharded": started.router("recommender", context.recommender)}
        places |= {f"sharded_{shards}": started.cluster(repository, shards) for shards in _SHARDS}
        echo = started.echo(echo_binary)
        for batch in _BATCHES:
            request = models.request(context.recommender, "recommender", models.recommender_inputs(batch))
            targets = {name: _predict_target(place, request) for name, place in places.items()}
            points = {c: _interleaved(context, targets, c) for c in CONCURRENCIES}
            for place in places.values():
                _predict_target(place, request)  # still right after the load
            echo_points = _interleaved(context, {"echo": _echo_target(echo, request.wire)}, _FULL_LOAD)["echo"]
            rows += _throughput_rows(batch, points)
            rows += _cpu_rows(context, batch, median(points[_FULL_LOAD]["unsharded"]), median(echo_points))
            if batch == 1:
                rows.append(_extra_latency_row("sharded_extra_p50_us_one_core", points[1], goal=None))
    return rows


def latency(context: Context) -> list[Row]:
    """What four servers add to one request at a time, when the router does not share its core with them.

    With a router that looks for answers before it sleeps, and with one that sleeps at once (the default).
    """
    with servers.running(context.log_dir) as started:
        places = {
            "unsharded": started.router("recommender", context.recommender),
            "sleeping": started.cluster(context.repository, 4, spread=True),
            "busy_polling": started.cluster(context.repository, 4, spread=True, busy_poll_us=_BUSY_POLL_US),
        }
        request = models.request(context.recommender, "recommender", models.recommender_inputs(1))
        targets = {name: _predict_target(place, request) for name, place in places.items()}
        points = _interleaved(context, targets, 1)
    rows = []
    for suffix, place, goal in (("", "busy_polling", 250.0), ("_no_busy_poll", "sleeping", None)):
        pair = {"unsharded": points["unsharded"], "sharded_4": points[place]}
        rows.append(_extra_latency_row(f"sharded_extra_p50_us{suffix}", pair, goal=goal))
    return rows


def row_lookup(context: Context) -> list[Row]:
    """Rows per second of the table store against a plain C loop with prefetch over the same mapped bytes."""
    rows = []
    for mode, goal in (("cold", 0.8), ("warm", None)):
        runs = [context.baselines.run_json("row_lookup", f"--mode={mode}") for _ in range(context.durations.rounds)]
        run = sorted(runs, key=lambda run: run["ratio"])[len(runs) // 2]
        rows.append(
            Row(
                name="row_lookup_vs_bound" if mode == "cold" else f"row_lookup_vs_bound_{mode}",
                value=run["rows_per_s"],
                unit="rows/s",
                baseline="C loop with prefetch",
                baseline_value=run["bound_rows_per_s"],
                goal=goal,
            )
        )
    return rows


def partition(context: Context) -> list[Row]:
    """Making a package of the recommender, from start of the command to its end, against `cp` and `sync`."""
    source = context.recommender
    copy = context.work_dir / "copy"
    megabytes = sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) / 1e6
    ours, copying = [], []
    for _ in range(context.durations.rounds):
        ours.append(context.partition_recommender())
        copying.append(_timed(["cp", "-r", str(source), str(copy)], ["sync", "-f", str(copy)]))
        _timed(["rm", "-r", str(copy)])
    row = Row(
        name="partition_vs_cp",
        value=megabytes / statistics.median(ours),
        unit="MB/s",
        baseline="cp and sync",
        baseline_value=megabytes / statistics.median(copying),
        detail={"seconds": statistics.median(ours), "cp_seconds": statistics.median(copying)},
    )
    return [row]


def start(context: Context) -> list[Row]:
    """From the command to the first good answer possible: the ready file, which is written once all serves."""
    places: dict[str, Callable[[servers.Servers], servers.Started]] = {
        "start_router_s": lambda started: started.router("recommender", context.recommender),
        "start_cluster_4_s": lambda started: started.cluster(context.repository, 4),
    }
    _ = context.repository  # made before the clock starts
    rows = []
    for name, launch in places.items():
        taken = []
        for _round in range(context.durations.rounds):
            with servers.running(context.log_dir) as started:
                taken.append(launch(started).start_s)
        rows.append(Row(name=name, value=statistics.median(taken), unit="s to ready, one core", higher_is_better=False))
    return rows


CASES: dict[str, Callable[[Context], list[Row]]] = {
    "tiny": tiny,
    "row_lookup": row_lookup,
    "partition": partition,
    "start": start,
    "recommender": recommender,
    "latency": latency,
    **load_interference.CASES,
    **resharding.CASES,
    **planning.CASES,
    **goodput.CASES,
    **rest.CASES,
    **batching.CASES,
    **batching_cases.CASES,
    **batching_sharded.CASES,
}


def _throughput_rows(batch: int, points: dict[int, dict[str, list[Point]]]) -> list[Row]:
    medians = {name: {c: median(points[c][name]) for c in points} for name in points[_FULL_LOAD]}
    unsharded = medians["unsharded"][_FULL_LOAD].requests_per_s
    return [
        Row(
            name=f"reco_b{batch}_{name}",
            value=by_concurrency[_FULL_LOAD].requests_per_s,
            unit=f"requests/s at concurrency {_FULL_LOAD}",
            baseline="" if name == "unsharded" else "unsharded",
            baseline_value=None if name == "unsharded" else unsharded,
            detail={k: v for c, point in by_concurrency.items() for k, v in _detail(f"c{c}_", point).items()},
        )
        for name, by_concurrency in medians.items()
    ]


def _cpu_rows(context: Context, batch: int, unsharded: Point, echo: Point) -> list[Row]:
    floor_us = _execution_floor_us(context, batch)
    name, unit, with_echo_us = f"reco_b{batch}_unsharded_cpu", "CPU µs per request", floor_us + echo.cpu_us
    return [
        Row(f"{name}_vs_floor", unsharded.cpu_us, unit, "C++ execution floor", floor_us, 1.5, higher_is_better=False),
        Row(f"{name}_vs_floor_and_echo", unsharded.cpu_us, unit, "floor + echo", with_echo_us, higher_is_better=False),
    ]


def _extra_latency_row(name: str, points: dict[str, list[Point]], goal: float | None) -> Row:
    pairs = zip(points["sharded_4"], points["unsharded"], strict=True)
    return Row(
        name=name,
        value=statistics.median(sharded.p50_us - unsharded.p50_us for sharded, unsharded in pairs),
        unit="µs more at p50, 4 servers, concurrency 1",
        baseline="unsharded p50",
        baseline_value=median(points["unsharded"]).p50_us,
        goal=goal,
        goal_on="value",
        higher_is_better=False,
    )


def _execution_floor_us(context: Context, batch: int) -> float:
    """Return the CPU microseconds of one execution of the recommender's graph in a C++ loop."""
    calls = round(context.durations.run_s * _FLOOR_CALLS_PER_S / batch**0.5)
    run = context.baselines.run_json(
        "execution_floor",
        *(str(context.recommender), "serving_default", str(calls)),
        f"dense=float:{batch},{models.DENSE_FEATURES}",
        f"ids=int64:{batch},{models.TABLES}:{models.TABLE_ROWS}",
    )
    return float(run["cpu_us_per_call"])


def _predict_target(place: servers.Started, request: models.Request) -> Target:
    check = functools.partial(models.check_response, expected=request.expected)
    return servers.target(place, servers.PREDICT, request.wire, check)


def _echo_target(place: servers.Started, wire: bytes) -> Target:
    return servers.target(
        place, servers.PREDICT, wire, lambda response: "" if response == wire else "other bytes came back"
    )


def _interleaved(context: Context, targets: dict[str, Target], concurrency: int) -> dict[str, list[Point]]:
    durations = context.durations
    say(f"{', '.join(targets)} at concurrency {concurrency}")
    return interleaved(
        targets,
        concurrency,
        rounds=durations.rounds,
        duration_s=durations.run_s,
        warm_up_s=durations.warm_up_s,
    )


def _detail(prefix: str, point: Point) -> dict[str, float]:
    return {
        f"{prefix}requests_per_s": round(point.requests_per_s, 1),
        f"{prefix}p50_us": point.p50_us,
        f"{prefix}p99_us": point.p99_us,
        f"{prefix}cpu_us": round(point.cpu_us, 2),
        f"{prefix}load_cpu": round(point.load_cpu, 2),
    }


def _timed(*commands: list[str]) -> float:
    begin = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, timeout=600)
    return time.monotonic() - begin
