"""Loads versions on threads of low priority, so that what serves keeps its latency."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from router.lifecycle.actions import Load
from router.load_statistics import LoadRecorder
from router.platforms.base import LoadOptions, Platform
from tessera import priority
from tessera.errors import Code, TesseraError

if TYPE_CHECKING:
    from cpp_ext import _graph

_log = logging.getLogger("router.lifecycle")

T = TypeVar("T")

LOADER_NICE = priority.LOWEST_NICE


class WarmUp(Protocol):
    """What is done with a version before it serves."""

    def __call__(self, load: Load, graph: _graph.Graph) -> int:
        """Return how many requests were replayed; raise TesseraError if the version must not serve. Blocks meanwhile.

        Runs at normal priority: threads that the first requests start go on to serve, and inherit it.
        """


@dataclass(frozen=True)
class Loader:
    """How versions are loaded.

    Args:
        platforms: by name.
        options: of all models.
        warm_up: None: nothing is done.
        recorder: counts loads and warm-ups, for metrics.
    """

    platforms: Mapping[str, Platform]
    options: LoadOptions
    warm_up: WarmUp | None = None
    recorder: LoadRecorder = field(default_factory=LoadRecorder)

    def load(self, load: Load) -> _graph.Graph:
        """Load one version. Blocks. REQUIRED: on a thread that ends afterwards, for its priority is lowered.

        Raises:
            TesseraError: it cannot be loaded.
        """
        lower_priority()
        options = replace(self.options, model=load.model, version=load.version)
        with _recorded(partial(self.recorder.loaded, load.model, load.candidate.path)):
            return self.platforms[load.config.platform].load(load.candidate.path, options)

    def warm(self, load: Load, graph: _graph.Graph) -> None:
        """Do what is done before a version serves; see `WarmUp` for errors and threads."""
        assert self.warm_up is not None
        records = 0
        with _recorded(lambda code, seconds: self.recorder.warmed_up(load.candidate.path, code, seconds, records)):
            records = self.warm_up(load, graph)


@contextlib.contextmanager
def _recorded(record: Callable[[Code, float], None]) -> Iterator[None]:
    """Call `record` with how the block ended, and the seconds that it took."""
    began_s = time.monotonic()
    code = Code.UNKNOWN
    try:
        yield
        code = Code.OK
    except TesseraError as error:
        code = error.code
        raise
    finally:
        record(code, time.monotonic() - began_s)


def lower_priority() -> None:
    """Let the calling thread, and those that it starts, run only when no other wants to."""
    priority.lower_priority("loading", LOADER_NICE)


def on_thread(function: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `function` on a thread of its own and return what it returns or raises; errors become TesseraError.

    The thread is a daemon: nobody waits for one that hangs on a dead file system. It belongs to the running event loop,
    and what it returns after that has ended, or after the future was cancelled, is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        result: T | None = None
        error: TesseraError | None = None
        try:
            result = function()
        except TesseraError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - whatever a platform raises must not end the server
            _log.exception("%s", name)
            error = TesseraError(f"{type(raised).__name__}: {raised}")
        try:
            loop.call_soon_threadsafe(_deliver, future, result, error)
        except RuntimeError:  # the loop is closed
            return

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _deliver(future: asyncio.Future[T], result: T | None, error: TesseraError | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]  # None only where T is
