"""Looks at base paths again and again, each on its own, so that one that hangs holds up no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from placement.tasks import end
from router.lifecycle.config import ModelConfig
from router.lifecycle.disk import SETTLE_S, Look, Looker
from router.lifecycle.loader import on_thread
from router.lifecycle.versions import DiskView
from router.platforms.base import Platform
from tessera.clock import Clock
from tessera.errors import TesseraError

_log = logging.getLogger("router.lifecycle")


@dataclass
class Looking:
    """The looks at all plain models. Used on one event loop, which never waits for a disk.

    Args:
        platforms: by name.
        poll_s: time between two looks at a base path; 0: only after a change of the configuration; below 0: never.
        held: model → versions that are in memory: nobody needs to know whether their files are complete.
        saw: is called with what a look showed; None: the base path cannot be read, and what was known of it holds.

    Attributes:
        unread: models whose base path could not be read when it was looked at last, or which nobody looks at.
    """

    platforms: Mapping[str, Platform]
    clock: Clock
    poll_s: float
    held: Callable[[str], frozenset[int]]
    saw: Callable[[str, DiskView | None], None]
    unread: set[str] = field(default_factory=set)
    _tasks: dict[str, tuple[ModelConfig, asyncio.Task[None]]] = field(default_factory=dict)

    def follow(self, models: Iterable[ModelConfig]) -> None:
        """Look at exactly these from now on; those that are as before are not looked at anew."""
        wanted = {model.name: model for model in models}
        for name, (model, task) in list(self._tasks.items()):
            if wanted.get(name) != model:
                task.cancel()
                del self._tasks[name]
        self.unread &= wanted.keys()
        for name, model in wanted.items():
            if self.poll_s < 0:
                self.unread.add(name)
            elif name not in self._tasks:
                looking = asyncio.create_task(self._look(model), name=f"router.lifecycle.look {name}")
                self._tasks[name] = (model, looking)

    async def stop(self) -> None:
        """Look no more. May be called twice."""
        for _, task in self._tasks.values():
            await end(task)
        self._tasks.clear()

    async def _look(self, config: ModelConfig) -> None:
        name = config.name
        told: set[str] = set()
        looker: Looker | None = None
        while True:
            try:
                looker = looker or Looker(config, self.platforms[config.platform], self.clock)
                look = await on_thread(partial(looker.look, self.held(name)), f"look at {name}")
            except TesseraError as error:
                look = Look(None, warnings=(f"model {name}: {error.message}",))
            for warning in look.warnings:
                if warning not in told:
                    _log.warning("%s", warning)
            told = set(look.warnings)  # what is gone, and comes back, is told again
            if look.view is None:
                self.unread.add(name)
            else:
                self.unread.discard(name)
            self.saw(name, look.view)
            if not look.unsettled and self.poll_s == 0:
                return
            await asyncio.sleep(SETTLE_S if look.unsettled else self.poll_s)
