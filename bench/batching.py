"""The cases that compare batching over a range of loads; bench/batching_cases.py has the others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.batching_arena import UNBATCHED, Arena, Contender, functions, ours
from bench.batching_driver import Load
from bench.batching_models import MAX_STEPS
from bench.batching_rows import (
    OURS,
    OURS_THREADS,
    OURS_UNBATCHED,
    Point,
    baselines,
    capacity,
    closed_rows,
    fastest,
    most_often,
    open_rows,
    overhead_row,
)
from bench.batching_variants import Settings
from bench.context import Context, say
from bench.report import Row

CLIENTS = (1, 2, 4, 8, 32, 128)
_QUICK_SHARE = 0.4
_FINALISTS, _OPEN_FINALISTS = 2, 6
_MEAN_STEPS = (1 + MAX_STEPS) / 2


@dataclass(frozen=True)
class Sweep:
    """What is measured of a workload.

    Attributes:
        functions: TensorFlow's batch functions, with their settings; the first are the ones of a quick run.
        run_s: Seconds of a run of a closed loop, in a full measurement; a sweep takes half of it for each setting.
        open_s: Seconds of a run of an open loop.
        clients: Of the closed loops.
        goals: Clients → goal of the ratio to the best baseline; 1 unless given.
        overhead_goal_us: Of what batching adds at one client; None: no such row.
        steps: Mean steps of a request, if the overhead is per step.
        rate_per_s: A further open loop; its goals are against the best padding.
        value_goals: Clients → goal in requests per second.
        intra_op_threads: Of Tessera, at every load.
        max_batch: Of Tessera, rows.
        rounds: Runs of the best ones, after the sweep; 0: the sweep's runs, then of `run_s`, are all.
        shares: Open loops, in percent of the best baseline's highest rate.
        quick_clients: Of the closed loops in a quick run.
        unbatched: TensorFlow's sessions without batching.
    """

    functions: tuple[Contender, ...]
    run_s: float
    open_s: float = 1.5
    clients: tuple[int, ...] = CLIENTS
    goals: tuple[tuple[int, float], ...] = ()
    overhead_goal_us: float | None = None
    steps: float = 1.0
    rate_per_s: float = 0.0
    value_goals: tuple[tuple[int, float], ...] = ()
    intra_op_threads: int = 1
    max_batch: int = 64
    rounds: int = 2
    shares: tuple[int, ...] = (50, 80, 95)
    quick_clients: tuple[int, ...] = (1, 32)
    unbatched: tuple[Contender, ...] = UNBATCHED

    def contenders(self, *, quick: bool) -> tuple[Contender, ...]:
        """All of them, or a few to see that everything works."""
        if quick:
            return (*ours(self.intra_op_threads, self.max_batch), *self.unbatched[:1], *self.functions[:2])
        return (*ours(self.intra_op_threads, self.max_batch), *self.unbatched, *self.functions)


_MLP = (
    *functions("function", Settings(0), Settings(1000, 1, 32)),
    *functions("function", Settings(0, 2), Settings(0, 0), Settings(200), Settings(5000)),
    *functions("function", Settings(0), Settings(0, 2), Settings(0, 0), intra_op_threads=1),
    *functions("function", Settings(1000, 1, 32), Settings(1000, 2, 32), intra_op_threads=1),
)
_LSTM = (
    *functions("pad", Settings(5000, 1, 32)),
    *functions("cell", Settings(0), Settings(1000), Settings(0, 0)),
    *functions("pad", Settings(0, 1, 32), Settings(1000, 1, 32), Settings(5000)),
    *functions("cell", Settings(0), Settings(1000), intra_op_threads=1),
)
_SIMULATED = (
    *functions("function", Settings(0, 1, 32), Settings(0, 2, 32), Settings(0, 2), Settings(0, 4, 32)),
    *functions("function", Settings(2000, 1, 32), Settings(0, 0)),
    *functions("whole", Settings(0, 1, 32), Settings(0, 2, 32), Settings(2000, 4, 32), Settings(5000, 2)),
)
_INCEPTION = (
    *functions("function", Settings(0, 1, 8), Settings(0, 1, 32)),
    *functions("whole", Settings(0, 1, 8), Settings(0, 2, 8)),
)

SWEEPS = {
    "mlp512": Sweep(_MLP, 0.7, goals=((32, 1.3),), overhead_goal_us=30.0),
    "mlp2048": Sweep(_MLP, 0.7, overhead_goal_us=30.0, intra_op_threads=0),  # a product is large enough for two cores
    "inception": Sweep(
        *(_INCEPTION, 3.0, 5.0, (1, 2, 4, 8, 32)),
        unbatched=UNBATCHED[:1],
        intra_op_threads=0,
        max_batch=8,
        rounds=0,
        shares=(50, 80),
        quick_clients=(1, 8),
    ),
    "sim": Sweep(_SIMULATED, 1.0, clients=(1, 2, 4, 8, 32, 64, 128), value_goals=((64, 3000.0),)),
    "lstm512": Sweep(_LSTM, 1.0, 2.0, overhead_goal_us=40.0, steps=_MEAN_STEPS, rate_per_s=500.0),
    "lstm1024": Sweep(_LSTM, 1.2, 2.0, overhead_goal_us=40.0, steps=_MEAN_STEPS),
}


def sweep(context: Context, workload: str) -> list[Row]:
    """Return rows of closed loops and of open loops at shares of the best baseline's capacity."""
    plan, quick = SWEEPS[workload], context.durations.rounds == 1
    rounds = 0 if quick else plan.rounds
    contenders = {contender.name: contender for contender in plan.contenders(quick=quick)}
    run_s, open_s = (seconds * (_QUICK_SHARE if quick else 1.0) for seconds in (plan.run_s, plan.open_s))
    rows: list[Row] = []
    finals: dict[int, dict[str, Point]] = {}
    with Arena(context, workload) as arena:
        for clients in plan.quick_clients if quick else plan.clients:
            say(f"{workload}: {len(contenders)} contenders, {clients} client{'s' * (clients > 1)}")
            load = Load(clients=clients)
            swept = arena.measure([*contenders.values()], load, seconds=run_s / (2 if rounds else 1), rounds=1)
            finalists = [contenders[name] for name in _finalists(swept)]
            measured = arena.measure(finalists, load, seconds=run_s, rounds=rounds) if rounds else swept
            finals[clients] = measured
            rows += closed_rows(workload, clients, measured, swept=swept, goal=dict(plan.goals).get(clients, 1.0))
            if clients in dict(plan.value_goals):
                rows.append(_value_row(workload, clients, measured[OURS], dict(plan.value_goals)[clients]))
            if clients == 1 and plan.overhead_goal_us is not None:
                name = f"batch_{workload}_{'step_' if plan.steps != 1.0 else ''}overhead_us"
                rows.append(overhead_row(name, swept, measured, goal_us=plan.overhead_goal_us, steps=plan.steps))
        best = most_often(_finalists(measured) for measured in finals.values())
        finalists = [contenders[name] for name in best[:_OPEN_FINALISTS]]
        for share in plan.shares[:1] if quick else plan.shares:
            rate = capacity(finals.values()) * share / 100
            say(f"{workload}: {rate:.0f}/s")
            measured = arena.measure(finalists, Load(rate=rate), seconds=open_s, rounds=1)
            rows += open_rows(workload, f"at{share}", rate, measured)
        if plan.rate_per_s:
            rows += _padding_rows(arena, workload, plan, open_s, max(rounds, 1))
    return rows


def _finalists(swept: dict[str, Point]) -> list[str]:
    best = fastest(baselines(swept), _FINALISTS)
    return list(dict.fromkeys((OURS, OURS_THREADS, OURS_UNBATCHED, *best)))


def _value_row(workload: str, clients: int, ours: Point, goal: float) -> Row:
    return Row(
        name=f"batch_{workload}_c{clients}_rate",
        value=ours.rate,
        unit=f"requests/s, {clients} clients, 2 event threads",
        goal=goal,
        goal_on="value",
        detail={"rows_per_batch": round(ours.rows_per_batch, 2), "p50_us": ours.p50_us, "p99_us": ours.p99_us},
    )


def _padding_rows(arena: Arena, workload: str, plan: Sweep, seconds: float, rounds: int) -> list[Row]:
    """Compare with static padding only, at a rate that no capacity decides."""
    contenders = [
        *ours(plan.intra_op_threads, plan.max_batch)[:2],
        *(contender for contender in plan.functions if contender.variant == "pad"),
    ]
    say(f"{workload}: {plan.rate_per_s:.0f}/s, against padding")
    load = Load(rate=plan.rate_per_s)
    measured = arena.measure(contenders, load, seconds=seconds, rounds=rounds)
    return open_rows(workload, f"{plan.rate_per_s:.0f}", plan.rate_per_s, measured, p50_goal=0.5, p99_goal=1.0)


CASES: dict[str, Callable[[Context], list[Row]]] = {
    f"batch_{workload}": functools.partial(sweep, workload=workload) for workload in SWEEPS
}
