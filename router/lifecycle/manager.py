"""Runs the lifecycle of plain models: looks at disks, loads, publishes, unloads, as `Core` decides."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from placement.tasks import end
from router.lifecycle.actions import Limits, Load, Unload
from router.lifecycle.config import ModelConfig, ServerConfig, check
from router.lifecycle.core import Core
from router.lifecycle.disk import SETTLE_S, Look, Looker
from router.lifecycle.loader import Loader, on_thread
from router.lifecycle.report import Outcome, check_labels, failure, not_ready, outcome, statuses
from router.lifecycle.target import PlainModel, Target
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

    Attributes:
        config: what is served, or will be: the last configuration that was not refused.
    """

    limits: Limits
    loader: Loader
    target: Target
    clock: Clock
    poll_s: float = 1.0
    allow_labels_for_unavailable: bool = False
    config: ServerConfig = field(default_factory=ServerConfig)
    counters: dict[str, int] = field(default_factory=lambda: {LOAD_ATTEMPTS: 0, LOAD_FAILURES: 0})
    _core: Core = field(init=False)
    _graphs: dict[int, _graph.Graph] = field(default_factory=dict)
    _served: dict[str, PlainModel] = field(default_factory=dict)
    _lookers: dict[str, tuple[ModelConfig, asyncio.Task[None]]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._core = Core(self.limits)

    async def start(self, config: ServerConfig, *, timeout_s: float | None = None) -> None:
        """Load `config` and return when every model serves. May be called once, before `apply`.

        Models serve as they become available. After an error loading goes on, until `stop`. A model without versions on
        disk is waited for.

        Raises:
            InvalidArgumentError: the configuration is wrong; nothing was loaded.
            FailedPreconditionError: a label names a version that is not available.
            DeadlineExceededError: it took longer than `timeout_s`; names what is missing.
            UnavailableError: `stop` was called meanwhile.
            TesseraError: models failed to load, after all retries; TensorFlow Serving's text.
        """
        self._loop = asyncio.get_running_loop()
        async with self._applying:
            check(config, self.config, self._platforms())
            self.config = config
            self._configure(config)
            names = [model.name for model in config.models]
            await self._available(names, "servable(s)", timeout_s, wait_for_retries=True)
            self._check_labels(config, ServerConfig(), set(names))

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
            self._check_labels(config, old, before & names)
            new = tuple(model for model in config.models if model.name not in before)
            try:
                if new:
                    hidden = frozenset(model.name for model in new)
                    self._configure(ServerConfig(old.models + new), hidden)
                    await self._available(sorted(hidden), "model(s)", timeout_s, wait_for_retries=False)
                    self._check_labels(config, old, set(hidden))
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

    def ready(self) -> tuple[bool, list[str]]:
        """Return whether every configured model answers as its policy says, and what is missing; see `not_ready`."""
        missing = not_ready(self._core)
        return not missing, missing

    async def stop(self) -> None:
        """Look and load no more; what serves goes on. A load that runs is not waited for. May be called twice."""
        self._stopped = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        for _, task in self._lookers.values():
            await end(task)
        for task in list(self._tasks):
            await end(task)
        self._lookers.clear()

    def _platforms(self) -> list[str]:
        return list(self.loader.platforms)

    def _check_labels(self, config: ServerConfig, old: ServerConfig, names: set[str]) -> None:
        check_labels(self._core, config, old, allow_unavailable=self.allow_labels_for_unavailable, names=names)

    async def _available(
        self, names: Iterable[str], what: str, timeout_s: float | None, *, wait_for_retries: bool
    ) -> None:
        """Wait until the models `names` have a version that serves and none that may still come; raise what fails."""
        names = list(names)

        async def settled() -> Outcome:
            while (result := outcome(self._core, names, wait_for_retries=wait_for_retries)).pending:
                self._changed.clear()
                await self._changed.wait()
                if self._stopped:
                    raise UnavailableError("the server is being stopped")
            return result

        try:
            result = await asyncio.wait_for(settled(), timeout_s)
        except TimeoutError:
            result = outcome(self._core, names, wait_for_retries=wait_for_retries)
        if result.pending or result.failed:
            raise failure(self._core, names, result, what=what, timeout_s=timeout_s)

    def _configure(self, config: ServerConfig, hidden: frozenset[str] = frozenset()) -> None:
        if self._stopped:
            return
        self._core.configure(config, hidden)
        wanted = {model.name: model for model in config.models}
        for name, (model, task) in list(self._lookers.items()):
            if wanted.get(name) != model:
                task.cancel()
                del self._lookers[name]
        for name, model in wanted.items():
            if name not in self._lookers and self.poll_s >= 0:
                looking = asyncio.create_task(self._look(model), name=f"router.lifecycle.look {name}")
                self._lookers[name] = (model, looking)
        self._step()

    async def _look(self, config: ModelConfig) -> None:
        """Look at one model's base path, again and again; one that hangs holds up no other."""
        name = config.name
        told: set[str] = set()
        looker: Looker | None = None
        while True:
            try:
                looker = looker or Looker(config, self.loader.platforms[config.platform], self.clock)
                held = self._core.models[name].held()
                look = await on_thread(partial(looker.look, held), f"look at {name}")
            except TesseraError as error:
                look = Look(None, warnings=(f"model {name}: {error.message}",))
            for warning in look.warnings:
                if warning not in told:
                    _log.warning("%s", warning)
            told = set(look.warnings)  # what is gone, and comes back, is told again
            if look.view is not None:
                self._core.saw(name, look.view)
                self._step()
            if not look.unsettled and self.poll_s == 0:
                return
            await asyncio.sleep(SETTLE_S if look.unsettled else self.poll_s)

    def _step(self) -> None:
        """Decide and act."""
        if self._stopped:
            return
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
        try:
            if models != self._served:
                self.target.serve_plain(models)
                self._served = models
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
