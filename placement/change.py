"""Changes a live placement: the driver that moves one model's operation from state to state.

`placement.change_steps.next_step` says what to do; the driver does it in one transaction that compares everything the
decision rested on, and begins again. So it may die anywhere, and the next one goes on from the records; two drivers
cannot both win, because each transaction compares the lock's fencing token and the operation's version.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from placement.audit import audit_put
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
from placement.records import AuditRecord, OperationRecord, OperationState, Placement, TrafficRecord
from placement.store import ABSENT, MAX_OPERATIONS, Compare, Delete, Put, Store
from placement.tidy import tidy
from placement.traffic import after_commit
from tessera.clock import Clock, SystemClock
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError, UnavailableError

ROUTER_GRACE_S = 3.0 * LEASE_TTL_S
"""How long a router that has vanished is waited for: more than a lease and than the deadline of most requests."""

MAX_SERVERS = MAX_OPERATIONS - 8
"""Servers before and after together: each is a comparison of the committing transaction, beside lock and records."""

_POLL_S = 0.1
_RETRY_S = 0.5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What is to be changed, decided from `found`; refused when that is no longer so.

    Attributes:
        targets: the placements to be made current one after the other; their epochs follow `found.last_epoch`.
        kind: "reshard" or "rollout".
        command: what was asked for, in words, for people.
        lost: servers of the present placement that are gone for good.
        traffic: how requests are divided once other versions are current.
        id: of the operation; empty for a new one.
    """

    found: Found
    targets: tuple[Placement, ...]
    kind: str
    command: str
    lost: tuple[str, ...] = ()
    traffic: TrafficRecord = field(default_factory=TrafficRecord)
    id: str = ""


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
        _check(change)
        async with self._limited(timeout_s), self._lock() as lock:
            await self._write(lock, change)
            until = frozenset() if wait else frozenset({OperationState.PREPARING})
            return await self._drive(lock, lambda found: self._next(found), until)

    async def resume(self, *, timeout_s: float) -> OperationRecord:
        """Go on with the operation that is there until it is DONE or ABORTED, and return it.

        Raises:
            NotFoundError: there is none.
            As `begin` otherwise.
        """
        async with self._limited(timeout_s), self._lock() as lock:
            return await self._drive(lock, lambda found: self._next(found))

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
        lock: Lock,
        decide: Callable[[Found], Step],
        until: frozenset[OperationState] = frozenset(),
    ) -> OperationRecord:
        while True:
            try:
                found = await self._reader.read()
                step = decide(found)
                if isinstance(step, Finished) or (found.operation is not None and found.operation.state in until):
                    assert found.operation is not None
                    await self._tidy(found)
                    return found.operation
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

    async def _check_lock(self, lock: Lock) -> None:
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
        found, (target, *later) = change.found, change.targets
        base = found.current_placement
        assert base is not None
        assert found.current is not None
        for placement in change.targets:
            key = self._keys.placement(self._model, placement.epoch)
            await self._store.transact([lock.compare, Compare(key, version=ABSENT)], [Put(key, placement.to_bytes())])
        operation = OperationRecord(
            id=change.id or uuid.uuid4().hex,
            kind=change.kind,
            state=OperationState.PLANNED,
            base_epoch=base.epoch,
            target_epoch=target.epoch,
            target_digest=target.digest,
            owner=self._owner,
            base_digest=base.digest,
            later_digests=tuple(placement.digest for placement in later),
            origin_epoch=base.epoch,
            lost=change.lost,
            routers=tuple(sorted({*found.routers, *found.known_routers})),
            command=change.command,
            traffic=change.traffic,
            origin_versions=found.current.versions,
            origin_traffic=found.current.traffic,
        )
        compares = [
            *self._compares(lock, found),
            Compare(self._keys.current(self._model), version=found.current_version),
        ]
        await self._store.transact(compares, [Put(self._keys.operation(self._model), operation.to_bytes())])
        self._say(f"operation {operation.id}: epoch {base.epoch} -> {change.targets[-1].epoch}")

    async def _do(self, lock: Lock, found: Found, step: Move | Commit | NextWave) -> None:
        operation, keys = found.operation, self._keys
        assert operation is not None
        compares = self._compares(lock, found)
        puts: list[Put | Delete] = []
        changed = after(operation, step, self._owner)
        if isinstance(step, Commit):
            placement = step.placement
            current = after_commit(found, operation, placement)
            compares += [Compare(keys.current(self._model), version=found.current_version)]
            compares += [Compare(entry.key, created=entry.created) for entry in step.ready]
            compares += [Compare(keys.member(server), created=created) for server, created in step.owners]
            puts.append(Put(keys.current(self._model), current.to_bytes()))
            puts.append(self._audit(operation, f"epoch {placement.epoch} is current"))
        elif changed.state is OperationState.ABORTED:
            puts.append(self._audit(operation, f"aborted: {changed.error}"))
        if isinstance(step, Move):
            puts += [
                Delete(keys.known_router(router))
                for router in step.forget[:MAX_SERVERS]
                if router in found.known_routers
            ]
        await self._store.transact(compares, [Put(keys.operation(self._model), changed.to_bytes()), *puts])
        self._say(f"{changed.state.value}: epoch {changed.base_epoch} -> {changed.target_epoch}")

    def _audit(self, operation: OperationRecord, result: str) -> Put:
        record = AuditRecord(operation.id, self._owner, operation.command, result, self._model)
        return audit_put(self._keys, self._clock, record)

    def _compares(self, lock: Lock, found: Found) -> list[Compare]:
        return [lock.compare, Compare(self._keys.operation(self._model), version=found.operation_version)]

    async def _tidy(self, found: Found) -> None:
        if found.current is not None and found.operation is not None and not found.operation.active:
            keep = frozenset({found.operation.origin_epoch})
            await tidy(self._store, self._keys, self._model, found.current.epoch, keep=keep)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._progress(text)


def _check(change: Change) -> None:
    """Refuse what can be seen to be wrong before anything is written."""
    found = change.found
    if found.operation is not None and found.operation.active:
        raise FailedPreconditionError(
            f"model {found.model}: operation {found.operation.id} ({found.operation.command or found.operation.kind}, "
            f"{found.operation.state.value}) of {found.operation.owner} is under way; see `tessera reshard status`"
        )
    base = found.current_placement
    if base is None:
        raise FailedPreconditionError(f"model {found.model}: has no placement yet; `tessera model load` makes one")
    for placement in change.targets:
        if (count := len({*base.servers, *placement.servers})) > MAX_SERVERS:
            raise FailedPreconditionError(
                f"model {found.model}: {count} servers before and after, expected at most {MAX_SERVERS} in one change"
            )
        base = placement
    epochs = [placement.epoch for placement in change.targets]
    assert epochs == list(range(found.last_epoch + 1, found.last_epoch + 1 + len(epochs)))
    assert epochs
