"""What is answered in time when more is asked for than can be answered.

An open loop: requests are sent at a constant rate whatever becomes of them, each with the same deadline. Good is what
was answered within it. The router has one core and no batching: its capacity is one over the time of a request.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from bench import batching_models, models, servers
from bench.context import Context, say
from bench.load import LOAD_CPU, Target
from bench.report import Row

LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
DEADLINE_S = 0.25
_WIDTH = 2048
_CLOSED_LOOP = 4


@dataclass
class Outcome:
    """Of one run: how many requests ended with which code, and how long the good ones took, seconds."""

    seconds: float
    codes: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    @property
    def good_per_s(self) -> float:
        """Answers in time per second."""
        return len(self.took_s) / self.seconds

    @property
    def p99_ms(self) -> float:
        """Of the good ones."""
        return float(np.percentile(self.took_s, 99)) * 1e3 if self.took_s else 0.0


def overload(context: Context) -> list[Row]:
    """Goodput at 0.5 to 3 times the capacity of a router with a model of some milliseconds."""
    make = functools.partial(batching_models.Mlp, "none", width=_WIDTH)
    folder = models.save(make, context.work_dir / "models" / f"mlp{_WIDTH}-{models.source_key()}")
    request = models.request(folder, "mlp", {"x": np.ones((1, _WIDTH), np.float32)})
    check = functools.partial(models.check_response, expected=request.expected)
    with servers.running(context.log_dir) as started:
        router = started.router("mlp", folder, "--enable-batching=false", "--intra-op-threads=1")
        target = servers.target(router, servers.PREDICT, request.wire, check)
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {LOAD_CPU} & affinity or affinity)
        try:
            seconds = max(1.0, context.durations.run_s * 2)
            asyncio.run(_closed(target, context.durations.warm_up_s))
            capacity = asyncio.run(_closed(target, seconds)).good_per_s
            say(f"capacity: {capacity:.1f} requests/s")
            outcomes = {load: asyncio.run(_open(target, load * capacity, seconds)) for load in LOADS}
        finally:
            os.sched_setaffinity(0, affinity)
        servers.target(router, servers.PREDICT, request.wire, check)  # still right after the load
    peak = max(outcome.good_per_s for outcome in outcomes.values())
    for load, outcome in outcomes.items():
        say(f"{load:g} x: good {outcome.good_per_s:.1f}/s, p99 {outcome.p99_ms:.1f} ms, {dict(outcome.codes)}")
    return [
        Row(
            name="goodput_at_3x",
            value=outcomes[3.0].good_per_s,
            unit=f"answers within {DEADLINE_S * 1e3:.0f} ms per second",
            baseline="best of 0.5 to 3 times the capacity",
            baseline_value=peak,
            goal=0.9,
            detail={
                "capacity": round(capacity, 1),
                **{f"good_at_{load:g}x": round(outcome.good_per_s, 1) for load, outcome in outcomes.items()},
                **{f"p99_ms_at_{load:g}x": round(outcome.p99_ms, 1) for load, outcome in outcomes.items()},
            },
        )
    ]


CASES: dict[str, Callable[[Context], list[Row]]] = {"overload": overload}


async def _closed(target: Target, seconds: float) -> Outcome:
    """A few callers, each with one request at a time."""
    outcome = Outcome(seconds)
    end_s = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(target.address) as channel:
        send: Any = channel.unary_unary(target.method)

        async def run() -> None:
            while time.monotonic() < end_s:
                await _send(send, target, outcome, 30.0)

        await asyncio.gather(*(run() for _ in range(_CLOSED_LOOP)))
    return outcome


async def _open(target: Target, rate: float, seconds: float) -> Outcome:
    """Requests at a constant rate; only those that were sent after the first second count."""
    outcome, warming = Outcome(seconds), Outcome(1.0)
    async with grpc.aio.insecure_channel(target.address) as channel:
        send: Any = channel.unary_unary(target.method)
        running: set[asyncio.Task[None]] = set()
        begin_s = time.monotonic()
        for number in range(int(rate * (seconds + 1.0))):
            at_s = number / rate
            if (wait_s := begin_s + at_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            counted = outcome if at_s >= 1.0 else warming
            task = asyncio.create_task(_send(send, target, counted, DEADLINE_S))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    return outcome


async def _send(send: Any, target: Target, outcome: Outcome, timeout_s: float) -> None:
    began_s = time.monotonic()
    try:
        response = await send(target.request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        outcome.codes[error.code().name] += 1
        return
    took_s = time.monotonic() - began_s
    if len(response) != target.response_bytes:
        outcome.codes["WRONG"] += 1
    elif took_s > timeout_s:  # gRPC took it, but it is too late
        outcome.codes["LATE"] += 1
    else:
        outcome.codes["OK"] += 1
        outcome.took_s.append(took_s)
