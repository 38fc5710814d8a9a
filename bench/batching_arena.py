"""Contenders of the comparison of batching, loaded once and measured in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bench.batching_driver import Driver, Load, Result
from bench.batching_models import Variant
from bench.batching_rows import OURS, OURS_THREADS, OURS_UNBATCHED, Point, median, point
from bench.batching_variants import ModelFolder, Settings
from bench.context import Context

EVENTS = 2
_LONGEST_S = 30.0


@dataclass(frozen=True)
class Contender:
    """A way to serve a workload.

    Attributes:
        name: Unique among those of one arena.
        engine: What runs it.
        variant: Of the model.
        settings: Of TensorFlow's batch function, where the variant has one.
        events: Threads that start the requests; 0: one per client, which waits.
        inter_op_threads: Of the session; 0: one a core, -1: the callers' own.
        intra_op_threads: That one large operation may use; 0: one a core.
        max_batch: Of Tessera's policy, rows.
    """

    name: str
    engine: Literal["tessera", "session"]
    variant: Variant
    settings: Settings | None = None
    events: int = 0
    inter_op_threads: int = 0
    intra_op_threads: int = 0
    max_batch: int = 64


def ours(intra_op_threads: int, max_batch: int = 64) -> tuple[Contender, ...]:
    """Return Tessera's batching in both drivings, and Tessera without batching."""
    batched = Contender(OURS, "tessera", "tessera", None, EVENTS, 0, intra_op_threads, max_batch)
    return (
        batched,
        dataclasses.replace(batched, name=OURS_THREADS, events=0),
        Contender(OURS_UNBATCHED, "tessera", "none", intra_op_threads=intra_op_threads),
    )


UNBATCHED = (
    Contender("none_session", "session", "none"),
    Contender("none_session_i1", "session", "none", intra_op_threads=1),
    Contender("none_session_caller_i1", "session", "none", inter_op_threads=-1, intra_op_threads=1),
)
"""TensorFlow's session without batching."""


def functions(variant: Variant, *settings: Settings, intra_op_threads: int = 0) -> list[Contender]:
    """Return TensorFlow's batch function around the variant's part, with each of the settings."""
    suffix = f"_i{intra_op_threads}" if intra_op_threads else ""
    return [
        Contender(f"{variant}_{item.name}{suffix}", "session", variant, item, intra_op_threads=intra_op_threads)
        for item in settings
    ]


class Arena:
    """Drivers of contenders of one workload; each process is started when first needed and ends with the arena."""

    def __init__(self, context: Context, workload: str) -> None:
        self._context = context
        self._workload = workload
        self._drivers: dict[Contender, Driver] = {}
        self._stack = contextlib.ExitStack()

    def driver(self, contender: Contender) -> Driver:
        """Return the process of the contender; those that differ in driving only share it."""
        key = dataclasses.replace(contender, name="", events=0)
        if key not in self._drivers:
            model = model_folder(self._context).saved_model(self._workload, contender.variant, contender.settings)
            self._drivers[key] = self._stack.enter_context(
                start_driver(
                    self._context,
                    contender.engine,
                    [(self._workload, model)],
                    inter_op_threads=contender.inter_op_threads,
                    intra_op_threads=contender.intra_op_threads,
                )
            )
            if contender.variant == "tessera":
                self._drivers[key].set_policy(max_batch_size=contender.max_batch)
        return self._drivers[key]

    def run(self, contender: Contender, load: Load, seconds: float) -> tuple[Result, float]:
        """Send one load, after a warm-up of a quarter of the time; return what came of it, and the seconds it took.

        A run without any answer is repeated, twice as long.
        """
        driver = self.driver(contender)
        while True:
            result = driver.run([load], seconds, warm_up_s=seconds / 4, events=contender.events)
            if result.load["good"] or result.load["errors"] or result.load["wrong"] or seconds > _LONGEST_S:
                return result, seconds
            seconds *= 2

    def measure(self, contenders: Sequence[Contender], load: Load, *, seconds: float, rounds: int) -> dict[str, Point]:
        """Return contender → medians of `rounds` runs; in each round all of them take turns.

        Raises:
            InternalError: an answer was wrong or failed.
        """
        points: dict[str, list[Point]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                points[contender.name].append(point(contender.name, *self.run(contender, load, seconds)))
        return {name: median(runs) for name, runs in points.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@functools.cache
def model_folder(context: Context) -> ModelFolder:
    """Return the models of this run of the benchmarks."""
    return ModelFolder(context.work_dir / "models" / "batching", op_library(context))


def op_library(context: Context) -> Path:
    """Return the library with the simulated accelerator."""
    return context.baselines.binary("batch_simulated_ops.so")


def start_driver(
    context: Context,
    engine: Literal["tessera", "session"],
    models: Iterable[tuple[str, Path]],
    *,
    inter_op_threads: int = 0,
    intra_op_threads: int = 0,
) -> Driver:
    """Start a driver of `models`: workload, SavedModel."""
    return Driver(
        context.baselines.binary("batch_driver"),
        engine,
        [(model, model_folder(context).samples(workload)) for workload, model in models],
        op_library=op_library(context),
        log=context.log_dir / "batch_driver.log",
        inter_op_threads=inter_op_threads,
        intra_op_threads=intra_op_threads,
    )
