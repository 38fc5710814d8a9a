"""The cases of batching that are not about throughput: sharing, overload, idleness, timers, faults, deadlines."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Literal

from bench.batching_arena import Arena, Contender, functions, model_folder, ours, start_driver
from bench.batching_driver import Driver, Load, Result
from bench.batching_rows import OURS_THREADS, point
from bench.batching_variants import Settings
from bench.context import Context, say
from bench.report import Row
from tessera.errors import InternalError

_FLOOD_CLIENTS, _QUIET_RATE = 64, 5.0
_OVERLOADS = (0.5, 1.0, 2.0, 3.0)
_DEADLINES_US = (50_000, 100_000, 200_000)
_OVERLOAD_THREADS = 2048  # more than arrive within the longest deadline, so that no request waits for one
_IDLE_MODELS = 64
_TIMEOUTS_US = (100, 200, 500, 1000, 2000, 5000)
_POISONED, _CANCELLED = 0.001, 0.2
_FUNCTION = Settings(0, 1, 32)
_BOTH: tuple[Literal["tessera", "function"], ...] = ("tessera", "function")
_OURS = next(contender for contender in ours(1) if contender.name == OURS_THREADS)


def two_models(context: Context) -> list[Row]:
    """One model flooded, one asked 5 times a second; all on one device: the quiet one's p99 against its own alone."""
    seconds = 8.0 * _scale(context)
    rows: dict[str, dict[str, float]] = {}
    for name in _BOTH:
        say(f"two models: {name}")
        with _many(context, "sim", name, 2) as driver:
            quiet, flood = Load(rate=_QUIET_RATE, model=1), Load(clients=_FLOOD_CLIENTS)
            alone = _good(name, driver.run([quiet], seconds, warm_up_s=0.5))
            flooded = _good(name, driver.run([flood], seconds / 4, warm_up_s=0.5))
            both = _good(name, driver.run([flood, quiet], seconds, warm_up_s=0.5))
        rows[name] = {
            "alone_p99_us": alone.load["p99_us"],
            "shared_p99_us": both.loads[1]["p99_us"],
            "shared_p50_us": both.loads[1]["p50_us"],
            "flood_alone_rate": flooded.load["good_per_s"],
            "flood_shared_rate": both.load["good_per_s"],
        }
    tessera, function = rows["tessera"], rows["function"]
    batch_us = 5_000 + 100 * 64
    return [
        Row(
            name="batch_two_models_quiet_p99",
            value=tessera["shared_p99_us"],
            unit="µs p99 of 5 requests/s beside 64 clients of another model",
            baseline="2 × its p99 alone + one batch of 64",
            baseline_value=2 * tessera["alone_p99_us"] + batch_us,
            goal=1.0,
            higher_is_better=False,
            detail={**tessera, **{f"function.{key}": value for key, value in function.items()}},
        ),
        Row(
            name="batch_two_models_flood",
            value=tessera["flood_shared_rate"],
            unit="requests/s of the flooded model",
            baseline="TensorFlow's batch function",
            baseline_value=function["flood_shared_rate"],
        ),
    ]


def overload(context: Context) -> list[Row]:
    """An accelerator below and above its capacity, with deadlines: good answers, and rows run for nobody."""
    seconds = 2.0 * _scale(context)
    rows = []
    (function,) = functions("function", Settings(0, 2, 32))
    with Arena(context, "accelerator") as arena:
        arena.driver(_OURS).set_policy(max_batch_size=_FUNCTION.max_batch)
        contenders = (_OURS, function)
        capacities = {}
        for contender in contenders:
            result = arena.run(contender, Load(clients=128), seconds)
            capacities[contender.name] = point(contender.name, *result).rate
        capacity = max(capacities.values())
        for deadline_us in _DEADLINES_US if context.durations.rounds > 1 else _DEADLINES_US[1:2]:
            say(f"overload: deadline {deadline_us // 1000} ms")
            results = {
                (contender.name, factor): arena.driver(contender).run(
                    [Load(rate=capacity * factor)],
                    seconds,
                    warm_up_s=0.3,
                    deadline_us=deadline_us,
                    threads=_OVERLOAD_THREADS,
                )
                for factor in _OVERLOADS
                for contender in contenders
            }
            rows.append(_overload_row(deadline_us, contenders, capacity, results))
    return rows


def _overload_row(
    deadline_us: int,
    contenders: tuple[Contender, Contender],
    capacity: float,
    results: dict[tuple[str, float], Result],
) -> Row:
    detail = {}
    for (name, factor), result in results.items():
        prefix = f"{name}.{factor:g}x."
        detail[f"{prefix}good_per_s"] = round(result.load["good_per_s"], 1)
        detail[f"{prefix}late_us"] = result.load["late_us"]
        # The warm-up's rows are counted too, on both sides.
        good = result.load["good"]
        detail[f"{prefix}device_rows_per_good"] = round(result.totals["device_rows"] / good, 2) if good else 0.0
    most = _OVERLOADS[-1]
    tessera, function = (results[contender.name, most].load["good_per_s"] for contender in contenders)
    best = max(results[contenders[0].name, factor].load["good_per_s"] for factor in _OVERLOADS)
    detail["function_good_per_s"] = function
    detail["capacity"] = round(capacity, 1)
    return Row(
        name=f"batch_overload_{deadline_us // 1000}ms",
        value=tessera,
        unit=f"good answers/s at {most:g} × capacity, deadline {deadline_us // 1000} ms",
        baseline="its own best at 0.5 to 3 × capacity",
        baseline_value=best,
        goal=0.9,
        detail=detail,
    )


def idle(context: Context) -> list[Row]:
    """64 loaded models without a request: context switches; and how late a batch's maximum wait ends."""
    seconds = 3.0 * _scale(context)
    switches = {}
    for name in _BOTH:
        say(f"idle: {_IDLE_MODELS} models, {name}")
        with _many(context, "mlp512", name, _IDLE_MODELS) as driver:
            driver.run([Load(clients=1, model=i) for i in range(_IDLE_MODELS)], 0.3)
            switches[name] = driver.run([], seconds, warm_up_s=0.5)
    per_s = {name: result.totals["context_switches_per_s"] for name, result in switches.items()}
    rows = [
        Row(
            name="batch_idle_switches",
            value=per_s["tessera"],
            unit=f"context switches/s, {_IDLE_MODELS} idle models",
            baseline="TensorFlow's batch function",
            baseline_value=per_s["function"],
            goal=5.0,
            goal_on="value",
            higher_is_better=False,
            detail={f"{name}_cpu_s": result.totals["cpu_s"] for name, result in switches.items()},
        )
    ]
    return rows + _timer_rows(context)


def _timer_rows(context: Context) -> list[Row]:
    say("timers")
    seconds = 0.7 * _scale(context)
    errors: dict[str, list[float]] = {"tessera": [], "function": []}
    load = Load(clients=1)
    with Arena(context, "mlp512") as arena:
        tessera = arena.driver(_OURS)
        functions_by_us = {
            timeout_us: functions("function", Settings(timeout_us, 1, 32))[0] for timeout_us in (0, *_TIMEOUTS_US)
        }
        tessera.set_policy(batch_timeout_us=0)
        at_once_us = {
            "tessera": _p50(tessera.run([load], seconds, warm_up_s=0.2)),
            "function": _p50(arena.run(functions_by_us[0], load, seconds)[0]),
        }
        for timeout_us in _TIMEOUTS_US:
            tessera.set_policy(batch_timeout_us=timeout_us)
            taken_us = {
                "tessera": _p50(tessera.run([load], seconds, warm_up_s=0.2)),
                "function": _p50(arena.run(functions_by_us[timeout_us], load, seconds)[0]),
            }
            for name, value in taken_us.items():
                errors[name].append(value - at_once_us[name] - timeout_us)
    return [
        Row(
            name="batch_timer_error_us",
            value=statistics.median(errors["tessera"]),
            unit="µs later than asked, median over waits of 0.1 to 5 ms",
            baseline="TensorFlow's batch function",
            baseline_value=statistics.median(errors["function"]),
            goal=100.0,
            goal_on="value",
            higher_is_better=False,
            detail={
                f"{name}.{timeout_us}us": round(error, 1)
                for name, values in errors.items()
                for timeout_us, error in zip(_TIMEOUTS_US, values, strict=True)
            },
        )
    ]


def faults(context: Context) -> list[Row]:
    """1 request in 1,000 makes the model fail, 1 in 5 is cancelled: how many others fail."""
    seconds = 3.0 * _scale(context)
    (function,) = functions("function", _FUNCTION)
    results = {}
    with Arena(context, "checked") as arena:
        for contender in (_OURS, function):
            say(f"faults: {contender.name}")
            results[contender.name] = arena.driver(contender).run(
                [Load(clients=32)], seconds, warm_up_s=0.3, poison=_POISONED, cancel=_CANCELLED
            )
    tessera, theirs = results[_OURS.name].load, results[function.name].load
    detail = {
        f"{name}.{key}": result.load[key]
        for name, result in results.items()
        for key in ("good_per_s", "p99_us", "poisoned", "cancelled", "innocent_failures", "wrong")
    }
    return [
        Row(
            name="batch_faults_innocent",
            value=tessera["innocent_failures"],
            unit="other requests that failed, 1 in 1,000 poisoned, 1 in 5 cancelled",
            baseline="TensorFlow's batch function",
            baseline_value=theirs["innocent_failures"],
            goal=0.0,
            goal_on="value",
            higher_is_better=False,
            detail=detail,
        )
    ]


def deadline(context: Context) -> list[Row]:
    """Three clients with 100 ms ask for a batch that takes 1 s: when they are answered."""
    load, deadline_us = Load(clients=3), 100_000
    late = {}
    (function,) = functions("function", _FUNCTION)
    with Arena(context, "slow") as arena:
        for contender in (_OURS, function):
            say(f"deadline: {contender.name}")
            result = arena.driver(contender).run([load], 3.0, deadline_us=deadline_us)
            if not result.load["errors"].get("DEADLINE_EXCEEDED"):
                raise InternalError(f"{contender.name}: got {result.load}, expected DEADLINE_EXCEEDED")
            late[contender.name] = result.load["late_us"] / 1000
    return [
        Row(
            name="batch_deadline_late_ms",
            value=late[_OURS.name],
            unit="ms after its deadline of 100 ms, the latest answer; a batch takes 1 s",
            baseline="TensorFlow's batch function",
            baseline_value=late[function.name],
            goal=5.0,
            goal_on="value",
            higher_is_better=False,
        )
    ]


def _many(context: Context, workload: str, variant: Literal["tessera", "function"], count: int) -> Driver:
    """Return a driver that has loaded the model `count` times."""
    settings = None if variant == "tessera" else _FUNCTION
    model = model_folder(context).saved_model(workload, variant, settings)
    return start_driver(context, "tessera" if variant == "tessera" else "session", [(workload, model)] * count)


def _good(name: str, result: Result) -> Result:
    if any(load["wrong"] or load["errors"] for load in result.loads):
        raise InternalError(f"{name}: got {result.loads}, expected good answers only")
    return result


def _p50(result: Result) -> float:
    return float(_good("timers", result).load["p50_us"])


def _scale(context: Context) -> float:
    return min(context.durations.run_s / 2.0, 1.0)


CASES: dict[str, Callable[[Context], list[Row]]] = {
    "batch_two_models": two_models,
    "batch_overload": overload,
    "batch_idle": idle,
    "batch_faults": faults,
    "batch_deadline": deadline,
}
