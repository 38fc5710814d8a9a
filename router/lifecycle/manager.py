"""Runs the lifecycle of plain models: looks at disks, loads, publishes, unloads, as `Core` decides.

Of the cluster's models it keeps the configuration only, which is checked and replaced together with all others.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from placement.tasks import end
from router.lifecycle.actions import Limits, Load, Unload
from router.lifecycle.config import CLUSTER, ServerConfig, check
from router.lifecycle.core import Core
from router.lifecycle.loader import Loader, on_thread
from router.lifecycle.looking import Looking
from router.lifecycle.report import Outcome, check_labels, failure, not_ready, outcome, statuses
from router.lifecycle.target import PlainModel, Target
from router.lifecycle.versions import DiskView
from tessera.clock import Clock
from tessera.errors import TesseraError, UnavailableError

if TYPE_CHECKING:
    from cpp_ext import _graph

_log = logging.getLogger("router.lifecycle")

UNLOAD_WARN_S = 60.0
"""How often it is said that requests keep an unloaded version in memory."""
LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"
LOAD_FAILURES = ":tensorflow:serving:load_failures"
"""Names of the counters that a ReloadConfigRequest may ask for."""


@dataclass
class Lifecycle:
    """The plain models of one server. Used on one event loop, which never waits for a disk or a load.

    Args:
        poll_s: time between two looks at a base path; 0: only after a change of the configuration; below 0: never.
        allow_labels_for_unavailable: a label that is new, or unchanged, may name a version that is not available.
        in_cluster: the server follows a cluster, whose models may be configured too.

    Attributes:
        config: what is served, or will be: the last configuration that was not refused.
    """

    limits: Limits
    loader: Loader
    target: Target
    clock: Clock
    poll_s: float = 1.0
    allow_labels_for_unavailable: bool = False
    in_cluster: bool = False
    config: ServerConfig = field(default_factory=ServerConfig)
    counters: dict[str, int] = field(default_factory=lambda: {LOAD_ATTEMPTS: 0, LOAD_FAILURES: 0})
    _core: Core = field(init=False)
    _graphs: dict[int, _graph.Graph] = field(default_factory=dict)
    _served: tuple[dict[str, PlainModel], ServerConfig, bool] | None = None
    _shown: ServerConfig = field(default_factory=ServerConfig)
    _started: bool = False
    _looking: Looking = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._core = core = Core(self.limits)
        self._looking = Looking(
            self.loader.platforms, self.clock, self.poll_s, lambda model: core.models[model].held(), self._saw
        )

    async def start(self, config: ServerConfig, *, timeout_s: float | None = None) -> None:
        """Load `config`; return when every model serves that has anything to load. May be called once, before `apply`.

        Models serve as they become available. After an error loading goes on, until `stop`. What is not waited for, and
        serves once it comes: a model that has no version on disk, or whose base path cannot be read; after `timeout_s`
        also what still loads.

        Raises:
            InvalidArgumentError: the configuration is wrong; nothing was loaded.
            FailedPreconditionError: a label names a version that is not available.
            UnavailableError: `stop` was called meanwhile.
            TesseraError: models failed to load, after all retries; TensorFlow Serving's text.
        """
        self._loop = asyncio.get_running_loop()
        async with self._applying:
            check(config, self.config, self._platforms())
            self.config = config
            self._configure(config)
            names = [model.name for model in config.plain]
            result = await self._settled(names, timeout_s, at_start=True)
            if result.failed:
                raise failure(self._core, names, replace(result, pending=()), what="servable(s)", timeout_s=timeout_s)
            for line in not_ready(self._core):
                _log.warning("starting without %s", line)
            self._check_labels(config, ServerConfig(), set(names) - set(result.pending))
            self._started = True
            self._step()

    async def apply(self, config: ServerConfig, *, timeout_s: float | None = None) -> None:
        """Replace the configuration, all or nothing; return when models that are new serve.

        New models are loaded beside what serves, and shown to clients together with all other changes. New versions of
        models that were there before are not waited for.

        Raises:
            InvalidArgumentError, FailedPreconditionError: it is refused, with TensorFlow Serving's texts.
            DeadlineExceededError: a new model was not available within `timeout_s`.
            TesseraError: a new model failed to load, at the first try. After any error all is as it was.
        """
        async with self._applying:
            old = self.config
            check(config, old, self._platforms())
            before = {model.name for model in old.models}
            names = {model.name for model in config.models}
            new = tuple(model for model in config.plain if model.name not in before)
            # Of a model that has never served nothing can be said, as at the start: else no change could mend it.
            unserved = {model.name for model in old.plain if not self._answering(model.name)}
            self._check_labels(config, old, names - {model.name for model in new} - unserved)
            try:
                if new:
                    hidden = frozenset(model.name for model in new)
                    self._configure(ServerConfig(old.models + new), hidden)
                    result = await self._settled(hidden, timeout_s, at_start=False)
                    if result.pending or result.failed:
                        raise failure(self._core, sorted(hidden), result, what="model(s)", timeout_s=timeout_s)
                    self._check_labels(config, old, hidden)
            except BaseException:
                self._configure(old)
                raise
            self.config = config
            self._configure(config)
            _log.info("configuration applied: %s", ", ".join(sorted(names)) or "no models")

    def apply_from_thread(self, config: ServerConfig, *, timeout_s: float | None = None) -> None:
        """As `apply`, on any thread but that of the event loop; blocks.

        Raises:
            UnavailableError: the event loop has not started the lifecycle yet, or ends.
            TesseraError: as `apply`.
        """
        if self._loop is None:
            raise UnavailableError("the server is starting: its first configuration is not there yet")
        applying = self.apply(config, timeout_s=timeout_s)
        try:
            asyncio.run_coroutine_threadsafe(applying, self._loop).result()
        except (concurrent.futures.CancelledError, RuntimeError) as error:
            applying.close()  # where the loop had ended before it took it
            raise UnavailableError("the server is being stopped; the configuration stays as it was") from error

    def used_bytes(self) -> int:
        """Return the memory that plain models take, those that are being loaded at their peak."""
        return self._core.used_bytes() - self._core.others_bytes

    def ready(self) -> tuple[bool, list[str]]:
        """Return whether every configured model answers as its policy says, and what is missing; see `not_ready`."""
        missing = not_ready(self._core)
        for model in self.config.clustered:
            if not self.target.cluster_versions(model.name):
                missing.append(f"model {model.name}: the cluster has no placement of it that could be loaded")
        return not missing, missing

    async def stop(self) -> None:
        """Look and load no more; what serves goes on. A load that runs is not waited for. May be called twice."""
        self._stopped = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        await self._looking.stop()
        for task in list(self._tasks):
            await end(task)

    def _platforms(self) -> list[str]:
        return [*self.loader.platforms, *([CLUSTER] if self.in_cluster else [])]

    def _check_labels(self, config: ServerConfig, old: ServerConfig, names: Collection[str]) -> None:
        allow = self.allow_labels_for_unavailable
        check_labels(self._answering, config, old, allow_unavailable=allow, names=names)

    def _answering(self, model: str) -> Collection[int]:
        """Return the versions of any model that answer requests."""
        plain = self._core.models.get(model)
        if plain is not None and plain.config is not None:
            return plain.available()
        return self.target.cluster_versions(model)

    async def _settled(self, names: Collection[str], timeout_s: float | None, *, at_start: bool) -> Outcome:
        """Wait until nothing is to be expected of the models `names`, or `timeout_s` is over; return where they are.

        At the start all retries are waited for, and nobody who has nothing to load.
        """

        def look() -> Outcome:
            return outcome(
                self._core, names, wait_for_retries=at_start, unread=self._looking.unread if at_start else ()
            )

        async def settle() -> None:
            while set((now := look()).pending) - set(now.absent if at_start else ()):
                self._changed.clear()
                await self._changed.wait()
                if self._stopped:
                    raise UnavailableError("the server is being stopped")

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(settle(), timeout_s)
        return look()

    def _configure(self, config: ServerConfig, hidden: frozenset[str] = frozenset()) -> None:
        if self._stopped:
            return
        self._core.configure(ServerConfig(config.plain), hidden)
        self._shown = ServerConfig(tuple(model for model in config.models if model.name not in hidden))
        self._looking.follow(config.plain)
        self._step()

    def _saw(self, name: str, view: DiskView | None) -> None:
        if view is None:
            self._changed.set()
            return
        self._core.saw(name, view)
        self._step()

    def _step(self) -> None:
        """Decide and act."""
        if self._stopped:
            return
        self._core.others_bytes = self.target.cluster_bytes()
        actions = self._core.decide(self.clock.monotonic_s())
        self._publish()
        for unload in actions.unloads:
            self._spawn(self._unload(unload))
        for load in actions.loads:
            self._spawn(self._load(load))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if actions.wake_s is not None:
            delay_s = max(0.0, actions.wake_s - self.clock.monotonic_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._step)
        self._changed.set()

    def _publish(self) -> None:
        models = {
            name: PlainModel(one.config, {n: self._graphs[g] for n, g in one.versions.items()}, one.labels)
            for name, one in self._core.published().items()
        }
        served = (models, self._shown, self._started)
        try:
            if served != self._served:
                self.target.serve_plain(models, self._shown, started=self._started)
                self._served = served
        except TesseraError as error:
            _log.error("cannot be served, what served before goes on: %s", error.message)
        self.target.describe_plain(statuses(self._core))

    async def _load(self, load: Load) -> None:
        name = f"model {load.model} version {load.version}"
        _log.info("%s: loading %s", name, load.candidate.path)
        self.counters[LOAD_ATTEMPTS] += 1
        began_s = self.clock.monotonic_s()
        try:
            graph = await on_thread(partial(self.loader.load, load), f"load {load.model}:{load.version}")
            self.target.adopt_plain(load.model, load.version, graph)
            if self.loader.warm_up is not None:
                await on_thread(partial(self.loader.warm, load, graph), f"warm up {load.model}:{load.version}")
                self.target.adopt_plain(load.model, load.version, graph)  # what it prepares may have changed meanwhile
        except TesseraError as error:
            self.counters[LOAD_FAILURES] += 1
            _log.error("%s: cannot be loaded: %s", name, error.message)
            self._core.failed(load, error.code, error.message, self.clock.monotonic_s())
        else:
            _log.info("%s: loaded in %.1f s", name, self.clock.monotonic_s() - began_s)
            self._graphs[load.generation] = graph
            self._core.loaded(load, graph.signature_defs)
        self._step()

    async def _unload(self, unload: Unload) -> None:
        """Let go of a version and wait until the last request that uses it has ended, however long that takes."""
        watch = self._graphs.pop(unload.generation).watch()
        while not await on_thread(partial(watch.wait, UNLOAD_WARN_S), f"unload {unload.model}:{unload.version}"):
            _log.warning("model %s version %d: is still in use by requests", unload.model, unload.version)
        _log.info("model %s version %d: unloaded", unload.model, unload.version)
        self._core.unloaded(unload)
        self._step()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
