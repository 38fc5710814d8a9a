"""Changes a live placement: the driver that moves one model's operation from state to state.

`placement.change_steps.next_step` says what to do; the driver does it in one transaction that compares everything the
decision rested on, and begins again. So it may die anywhere, and the next one goes on from the records; two drivers
cannot both win, because each transaction compares the lock's fencing token and the operation's version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from placement.audit import audit_put
from placement.change_begin import Change as Change
from placement.change_begin import check_change, first_record
from placement.change_marks import Held, Mark, commit_step, pause_step, resume_step, verified_step
from placement.change_steps import (
    Commit,
    Finished,
    Move,
    NextWave,
    Step,
    Wait,
    abort_step,
    after,
    next_step,
)
from placement.found import Found, Reader
from placement.keys import Keys
from placement.lock import LOCK_TTL_S, Lock
from placement.membership import LEASE_TTL_S
from placement.records import AuditRecord, OperationRecord, OperationState
from placement.store import ABSENT, MAX_OPERATIONS, Compare, Delete, Put, Store
from placement.tidy import tidy
from placement.traffic import after_commit
from tessera.clock import Clock, SystemClock
from tessera.errors import AbortedError, DeadlineExceededError, UnavailableError

ROUTER_GRACE_S = 3.0 * LEASE_TTL_S
"""How long a router that has vanished is waited for: more than a lease and than the deadline of most requests."""

_FORGOTTEN = MAX_OPERATIONS - 8
"""Routers that one transaction forgets; those that are left are forgotten by the next change."""

_POLL_S = 0.1
_RETRY_S = 0.5

Progress = Callable[[str], None]


class ChangeDriver:
    """Drives the operation of one model. Lives on one event loop.

    Args:
        store: not closed.
        keys: of the cluster.
        model: its name.
        owner: who asks, for lock, records and messages.
        progress: is told, in a few words, what happens and what is waited for, whenever that changes.
        clock: for grace periods and the audit's time.
        grace_s: see `ROUTER_GRACE_S`.
        lock_wait_s: how long another driver's lock is waited for: one that was killed leaves it behind for a while.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        model: str,
        *,
        owner: str,
        progress: Progress | None = None,
        clock: Clock | None = None,
        grace_s: float = ROUTER_GRACE_S,
        lock_wait_s: float = LOCK_TTL_S + 2.0,
    ) -> None:
        self._store, self._keys, self._model, self._owner = store, keys, model, owner
        self._progress = progress or (lambda text: None)
        self._clock = clock or SystemClock()
        self._grace_s, self._lock_wait_s = grace_s, lock_wait_s
        self._reader = Reader(store, keys, model)
        self._committed: tuple[int, float] | None = None
        self._said = ""

    async def begin(self, change: Change, *, timeout_s: float, wait: bool = True) -> OperationRecord:
        """Write the operation down, and drive it to its end, or, without `wait`, until servers begin to prepare.

        Returns:
            The operation as it is then.

        Raises:
            FailedPreconditionError: another operation is under way, or another driver holds the lock.
            AbortedError: what `change` was decided from has changed: plan again; or the lock was lost.
            DeadlineExceededError: `timeout_s` ran out; the operation stays as it is.
            UnavailableError: the store does not answer.
        """
        check_change(change)
        async with self._limited(timeout_s), self._lock() as lock:
            await self._write(lock, change)
            until = frozenset() if wait else frozenset({OperationState.PREPARING})
            return await self._drive(lock, self._next, until)

    async def resume(self, *, timeout_s: float) -> OperationRecord:
        """Go on with the operation that is there, paused or not, until it has ended or is held, and return it.

        Raises:
            NotFoundError: there is none.
            As `begin` otherwise.
        """
        async with self._limited(timeout_s), self._lock() as lock:
            await self._drive(lock, resume_step)
            return await self._drive(lock, self._next)

    async def carry_on(self, *, timeout_s: float) -> OperationRecord:
        """As `resume`, for whoever acts without an operator: what is paused stays so."""
        async with self._limited(timeout_s), self._lock() as lock:
            return await self._drive(lock, self._next)

    async def pause(self, *, timeout_s: float) -> OperationRecord:
        """Let nobody do anything for the operation before it is resumed or given up.

        Takes no lock: whoever drives it now compares the record with each write, and stops when it reads the next one.

        Raises:
            NotFoundError: there is none.
            FailedPreconditionError: it has ended, is being given up, or is a load.
            As `begin` otherwise.
        """
        async with self._limited(timeout_s):
            return await self._drive(None, pause_step)

    async def verified(self, epoch: int, *, timeout_s: float) -> OperationRecord:
        """Write that what is staged for `epoch` was compared with what it should be, and return the operation.

        Raises:
            FailedPreconditionError: the operation is not PREPARED for that epoch.
            As `pause` otherwise.
        """
        async with self._limited(timeout_s):
            return await self._drive(None, lambda found: verified_step(found, epoch))

    async def commit(self, *, unverified: bool = False, timeout_s: float) -> OperationRecord:
        """Commit an operation that is held, and drive it, with all waves that follow, to its end.

        Raises:
            FailedPreconditionError: it is not PREPARED, or was not verified and `unverified` is False.
            As `resume` otherwise.
        """
        async with self._limited(timeout_s), self._lock() as lock:
            await self._drive(lock, lambda found: commit_step(found, unverified=unverified))
            return await self._drive(lock, self._next)

    async def abort(self, reason: str, *, timeout_s: float) -> OperationRecord:
        """Give the operation up; return when servers have dropped what they staged for it.

        Raises:
            NotFoundError: there is none.
            FailedPreconditionError: it is past the commit.
            As `begin` otherwise.
        """
        async with self._limited(timeout_s), self._lock() as lock:
            return await self._drive(lock, lambda found: abort_step(found, reason))

    @asynccontextmanager
    async def _limited(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise DeadlineExceededError(
                f"model {self._model}: not done within {timeout_s:g} s: {self._said or 'the store was slow'}; "
                "the operation stays as it is, `tessera reshard resume` goes on from here"
            ) from None

    def _lock(self) -> Lock:
        return Lock(self._store, self._keys.lock(self._model), self._owner, wait_s=self._lock_wait_s)

    async def _drive(
        self,
        lock: Lock | None,
        decide: Callable[[Found], Step],
        until: frozenset[OperationState] = frozenset(),
    ) -> OperationRecord:
        while True:
            try:
                found = await self._reader.read()
                step = decide(found)
                operation = found.operation
                if isinstance(step, Finished | Held) or (operation is not None and operation.state in until):
                    assert operation is not None
                    await self._tidy(found)
                    return operation
                if isinstance(step, Wait):
                    self._say(f"waiting for {step.what}")
                    await asyncio.sleep(_POLL_S)
                else:
                    await self._do(lock, found, step)
            except AbortedError:
                # Something that the decision rested on has changed. The lock's own loss ends the driver.
                await self._check_lock(lock)
            except (UnavailableError, DeadlineExceededError) as error:
                # The outcome of a write may be unknown: reading again tells.
                self._say(error.message)
                await asyncio.sleep(_RETRY_S)

    async def _check_lock(self, lock: Lock | None) -> None:
        if lock is None:
            return
        key = self._keys.lock(self._model)
        held = await self._store.get(key)
        if held is None or held.created != lock.compare.created:
            raise AbortedError(f"{key}: the lock was lost to another driver; the operation is in its hands")

    def _next(self, found: Found) -> Step:
        """Ask what is next, with the time that passed since the commit was first seen."""
        operation, now_s = found.operation, self._clock.monotonic_s()
        if operation is not None and operation.state is OperationState.COMMITTED:
            if self._committed is None or self._committed[0] != operation.target_epoch:
                self._committed = operation.target_epoch, now_s
        else:
            self._committed = None
        since_s = now_s - self._committed[1] if self._committed is not None else 0.0
        return next_step(found, committed_for_s=since_s, grace_s=self._grace_s)

    async def _write(self, lock: Lock, change: Change) -> None:
        """Write the documents, then the operation, which compares that what the plan rests on still stands."""
        found = change.found
        for placement in change.targets:
            key = self._keys.placement(self._model, placement.epoch)
            await self._put([lock.compare, Compare(key, version=ABSENT)], Put(key, placement.to_bytes()))
        operation = first_record(change, self._owner)
        compares = [
            *self._compares(lock, found),
            Compare(self._keys.current(self._model), version=found.current_version),
        ]
        await self._put(compares, Put(self._keys.operation(self._model), operation.to_bytes()))
        self._say(f"operation {operation.id}: epoch {operation.base_epoch} -> {change.targets[-1].epoch}")

    async def _put(self, compares: list[Compare], put: Put) -> None:
        """Write what nobody else would write alike; when the outcome is unknown, what is there tells it."""
        while True:
            try:
                await self._store.transact(compares, [put])
                return
            except AbortedError:
                entry = await self._store.get(put.key)
                if entry is None or entry.value != put.value:
                    raise
                return
            except (UnavailableError, DeadlineExceededError) as error:
                self._say(error.message)
                await asyncio.sleep(_RETRY_S)

    async def _do(self, lock: Lock | None, found: Found, step: Mark | Move | Commit | NextWave) -> None:
        operation, keys = found.operation, self._keys
        assert operation is not None
        compares = self._compares(lock, found)
        puts: list[Put | Delete] = []
        changed = after(operation, step, self._owner)
        if isinstance(step, Commit):
            placement = step.placement
            current = after_commit(found, operation, placement)
            compares += [Compare(keys.current(self._model), version=found.current_version)]
            compares += found.still_there(keys, step.ready, step.owners)
            puts.append(Put(keys.current(self._model), current.to_bytes()))
            puts.append(self._audit(operation, f"epoch {placement.epoch} is current"))
        elif changed.state is OperationState.ABORTED:
            puts.append(self._audit(operation, f"aborted: {changed.error}"))
        if isinstance(step, Move):
            puts += [
                Delete(keys.known_router(router))
                for router in step.forget[:_FORGOTTEN]
                if router in found.known_routers
            ]
        await self._store.transact(compares, [Put(keys.operation(self._model), changed.to_bytes()), *puts])
        self._say(f"{changed.state.value}: epoch {changed.base_epoch} -> {changed.target_epoch}")

    def _audit(self, operation: OperationRecord, result: str) -> Put:
        record = AuditRecord(operation.id, self._owner, operation.command, result, self._model)
        return audit_put(self._keys, self._clock, record)

    def _compares(self, lock: Lock | None, found: Found) -> list[Compare]:
        operation = Compare(self._keys.operation(self._model), version=found.operation_version)
        return [operation] if lock is None else [lock.compare, operation]

    async def _tidy(self, found: Found) -> None:
        if found.current is not None and found.operation is not None and not found.operation.active:
            keep = frozenset({found.operation.origin_epoch})
            await tidy(self._store, self._keys, self._model, found.current.epoch, keep=keep)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._progress(text)
