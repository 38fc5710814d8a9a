"""Goes on with changes whose command has died or did not wait: the same driver, without an operator.

Any number may run; one is elected, so that the others do not get in its way. What makes it safe is not the election
but what makes two commands safe: the model's lock, and what each write compares.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from placement.change import ChangeDriver
from placement.keys import Keys
from placement.lock import Lock
from placement.records import OperationRecord
from placement.snapshot import ClusterSnapshot
from placement.store import Store
from placement.tasks import end
from placement.view import ClusterView
from tessera.clock import Clock, SystemClock
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError, TesseraError

_log = logging.getLogger("placement.controller")

MAX_AT_ONCE = 16
"""Models whose changes are driven side by side; further ones wait for their turn."""

TURN_S = 10.0
"""How long it keeps a model's lock; then it lets an operator's command have it who waits for it."""

_ROUND_S = 1.0
_STANDBY_S = 2.0
_RETRY_S = 15.0


class Controller:
    """Carries on the changes of one cluster. Lives on one event loop.

    Args:
        store: not closed.
        keys: of the cluster.
        owner: its name for locks and records; should say that it is a controller.
        clock: for grace periods and the audit's time.
        rng: spreads the attempts of several controllers.
        turn_s: see `TURN_S`.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        owner: str,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        turn_s: float = TURN_S,
    ) -> None:
        self._store, self._keys, self._owner = store, keys, owner
        self._clock, self._rng = clock or SystemClock(), rng or random.Random()
        self._turn_s = turn_s
        self._view = ClusterView(store, keys, clock=self._clock, rng=self._rng)
        self._drivers: dict[str, ChangeDriver] = {}
        self._turns: dict[str, asyncio.Task[float]] = {}
        self._not_before_s: dict[str, float] = {}
        self.leading = False

    async def run(self) -> None:
        """Stand for election, and carry on while elected; until cancelled."""
        self._view.start()
        try:
            while True:
                try:
                    if await self._store.get(self._keys.controller) is None:
                        async with Lock(self._store, self._keys.controller, self._owner) as lock:
                            await self._lead(lock)
                except TesseraError as error:
                    _log.debug("not elected: %s", error.message)
                await asyncio.sleep(self._rng.uniform(_STANDBY_S / 2, _STANDBY_S))
        finally:
            await self._view.stop()

    async def _lead(self, lock: Lock) -> None:
        """Carry on until the election was lost."""
        _log.info("%s: elected", self._owner)
        self.leading = True
        try:
            while True:
                held = await self._store.get(self._keys.controller)
                if held is None or held.created != lock.compare.created:
                    _log.warning("%s: no longer elected", self._owner)
                    return
                await self._round(self._view.snapshot)
                await asyncio.sleep(_ROUND_S)
        finally:
            self.leading = False
            turns, self._turns = self._turns, {}
            for task in turns.values():
                await end(task)
            self._drivers.clear()
            self._not_before_s.clear()

    async def _round(self, snapshot: ClusterSnapshot) -> None:
        """Begin a turn for each model that has something to be carried on and that nobody drives."""
        now_s = self._clock.monotonic_s()
        for model, task in list(self._turns.items()):
            if task.done():
                del self._turns[model]
                self._not_before_s[model] = now_s + task.result()
        waiting = to_carry_on(snapshot)
        for gone in self._drivers.keys() - waiting.keys() - self._turns.keys():
            del self._drivers[gone]
            self._not_before_s.pop(gone, None)
        due = [model for model in waiting if model not in self._turns and self._not_before_s.get(model, 0.0) <= now_s]
        if not due:
            return
        locked = {entry.key for entry in (await self._store.list_prefix(self._keys.locks)).entries}
        for model in due[: MAX_AT_ONCE - len(self._turns)]:
            if self._keys.lock(model) not in locked:
                # One driver for all turns: it remembers since when it waits for a router that has vanished.
                driver = self._drivers.setdefault(
                    model,
                    ChangeDriver(
                        self._store, self._keys, model,
                        owner=self._owner, progress=_Told(model), clock=self._clock, lock_wait_s=0.0,
                    ),
                )  # fmt: skip
                self._turns[model] = asyncio.create_task(self._turn(model, driver), name=f"controller.{model}")

    async def _turn(self, model: str, driver: ChangeDriver) -> float:
        """Drive for a while; return how long to leave the model alone then."""
        try:
            done = await driver.carry_on(timeout_s=self._turn_s)
            _log.info("model %s: operation %s is %s", model, done.id, done.state.value)
        except (AbortedError, DeadlineExceededError, FailedPreconditionError) as error:
            _log.debug("model %s: %s", model, error.message)  # a command has it, or the turn is over
        except TesseraError as error:
            _log.error("model %s: cannot go on: %s", model, error.message)
            return _RETRY_S
        return _ROUND_S


class _Told:
    """Puts a driver's progress into the log."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __call__(self, text: str) -> None:
        _log.info("model %s: %s", self._model, text)


def to_carry_on(snapshot: ClusterSnapshot) -> Mapping[str, OperationRecord]:
    """Return model → operation, of those that wait for nobody but a driver."""
    return {
        name: view.operation
        for name, view in sorted(snapshot.models.items())
        if view.operation is not None
        and view.operation.active
        and view.operation.kind != "load"  # its command says what to load, and does so when it is called again
        and not view.operation.stopped
    }
