"""A model's first placement: the driver that makes it.

`next_step` is pure: it looks at what the store holds and says what to do. The driver reads, asks it, does that in one
transaction that compares everything the decision rested on, and begins again. So a driver may die anywhere, and the
next one goes on from the records; two drivers cannot both win, because each transaction compares the lock's fencing
token and the operation's version.

This makes a model's first placement (PREPARING → DONE); `placement.change` changes a live one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from placement.audit import audit_put
from placement.found import Found, Reader, plan_servers
from placement.keys import Keys
from placement.lock import LOCK_TTL_S, Lock
from placement.operation_steps import Abort, Begin, Commit, Nothing, Wait, next_step
from placement.plan import Plan, plan_placement
from placement.records import (
    AuditRecord,
    CurrentRecord,
    OperationRecord,
    OperationState,
    PackageRef,
    Placement,
)
from placement.slots import default_slots
from placement.store import ABSENT, Compare, Put, Store
from placement.tidy import tidy
from tessera.clock import Clock, SystemClock
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError, UnavailableError

_POLL_S = 0.1
_RETRY_S = 0.5

SlotBytes = Callable[[int], Sequence[int]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class LoadResult:
    """What a load did: the placement that is current now, and the plan if this call made it."""

    placement: Placement
    changed: bool
    plan: Plan | None


async def load_model(
    store: Store,
    keys: Keys,
    *,
    model: str,
    versions: Sequence[PackageRef],
    slot_bytes: SlotBytes,
    replicas: int,
    owner: str,
    timeout_s: float,
    min_servers: int = 1,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> LoadResult:
    """Give `model` its first placement, and return when every server holds its part and routers can see it.

    Servers that may get slots are the live members, except those whose `servers/` record says CORDONED or DRAINING;
    that record also overrides domain, weight (1 without it) and capacity.

    Args:
        store: not closed.
        keys: of the cluster.
        model: its name.
        versions: what to serve.
        slot_bytes: number of slots → bytes of each slot (`placement.plan.slot_bytes`); all zeros for a model without
            tables, which needs no servers.
        replicas: how many servers hold each slot, ≥ 1.
        owner: who asks, for locks, audit and messages.
        timeout_s: for everything. When it runs out the operation stays as it is: calling again goes on.
        min_servers: wait until so many servers may get slots.
        progress: is told, in a few words, what is being waited for, whenever that changes.
        clock: for the audit's time.

    Raises:
        FailedPreconditionError: the model has another placement already; another driver holds the lock; the servers
        cannot hold it.
        DeadlineExceededError: `timeout_s` ran out; says what was missing.
        UnavailableError: the store does not answer.
    """
    driver = _Driver(
        store, keys, model, tuple(sorted(versions, key=lambda v: v.version)), slot_bytes, replicas, owner, min_servers,
        progress or (lambda text: None), clock or SystemClock(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            return await driver.run()
    except TimeoutError:
        raise DeadlineExceededError(
            f"model {model}: not loaded within {timeout_s:g} s: {driver.waiting or 'the store was slow'}; "
            "calling again goes on from here"
        ) from None


async def plan_load(
    store: Store,
    keys: Keys,
    *,
    model: str,
    versions: Sequence[PackageRef],
    slot_bytes: SlotBytes,
    replicas: int,
) -> Plan | None:
    """Return what `load_model` would make of the servers that are there now; None if that is current. Writes nothing.

    Raises:
        FailedPreconditionError: the model has another placement already; the servers cannot hold it.
        UnavailableError: the store does not answer.
    """
    ordered = tuple(sorted(versions, key=lambda v: v.version))
    found = await Reader(store, keys, model).read()
    if isinstance(next_step(found, ordered, fresh=True), Nothing):
        return None
    slots = default_slots(len(plan_servers(found.members, found.servers)))
    sizes = await asyncio.to_thread(slot_bytes, slots)
    return await asyncio.to_thread(_first_plan, found, model, ordered, sizes, replicas)


def _first_plan(
    found: Found, model: str, versions: Sequence[PackageRef], slot_bytes: Sequence[int], replicas: int
) -> Plan:
    return plan_placement(
        model=model,
        epoch=found.last_epoch + 1,
        versions=versions,
        servers=plan_servers(found.members, found.servers),
        slot_bytes=slot_bytes,
        replicas=replicas,
    )


class _Driver:
    def __init__(
        self,
        store: Store,
        keys: Keys,
        model: str,
        versions: tuple[PackageRef, ...],
        slot_bytes: SlotBytes,
        replicas: int,
        owner: str,
        min_servers: int,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._store, self._keys, self._model, self._versions = store, keys, model, versions
        self._slot_bytes, self._replicas, self._owner = slot_bytes, replicas, owner
        self._min_servers, self._progress, self._clock = min_servers, progress, clock
        self._reader = Reader(store, keys, model)
        self._plan: Plan | None = None
        self._changed = False
        self._aborted = False
        self._taken_up: set[str] = set()
        self.waiting = ""

    async def run(self) -> LoadResult:
        """Move the operation until there is nothing to do."""
        lock_key = self._keys.lock(self._model)
        async with Lock(self._store, lock_key, self._owner, wait_s=LOCK_TTL_S + 2.0) as lock:
            while True:
                try:
                    if result := await self._step(lock):
                        await tidy(self._store, self._keys, self._model, result.placement.epoch)
                        return result
                except AbortedError:
                    # Something that the decision rested on has changed. The lock's own loss ends the driver.
                    held = await self._store.get(lock_key)
                    if held is None or held.created != lock.compare.created:
                        raise FailedPreconditionError(f"{lock_key}: the lock was lost to another driver") from None
                except (UnavailableError, DeadlineExceededError) as error:
                    # The outcome of a write may be unknown: reading again tells.
                    self._say(error.message)
                    await asyncio.sleep(_RETRY_S)

    async def _step(self, lock: Lock) -> LoadResult | None:
        found = await self._reader.read()
        step = next_step(
            found, self._versions, fresh=found.operation is None or found.operation.id not in self._taken_up
        )
        if found.operation is not None:
            self._taken_up.add(found.operation.id)
        if isinstance(step, Nothing):
            return LoadResult(step.placement, self._changed, self._plan)
        if isinstance(step, Wait):
            self._say(f"waiting for {step.what}")
            await asyncio.sleep(_POLL_S)
        elif isinstance(step, Abort):
            await self._abort(lock, found, step.reason)
        elif isinstance(step, Begin):
            await self._begin(lock, found)
        else:
            await self._commit(lock, found, step)
        return None

    async def _begin(self, lock: Lock, found: Found) -> None:
        """Plan, and write document and operation together; or wait if there are not servers enough yet."""
        servers = plan_servers(found.members, found.servers)
        # Planning is seconds of arithmetic for a large cluster: not on the event loop, which keeps the lock alive.
        slot_bytes = await asyncio.to_thread(self._slot_bytes, default_slots(len(servers)))
        if any(slot_bytes) and len(servers) < self._min_servers:
            self._say(f"waiting for servers: {len(servers)} of {self._min_servers} are there")
            await asyncio.sleep(_POLL_S)
            return
        epoch = found.last_epoch + 1
        try:
            self._plan = await asyncio.to_thread(
                _first_plan, found, self._model, self._versions, slot_bytes, self._replicas
            )
        except FailedPreconditionError as error:
            if not self._aborted:
                raise
            # The servers may still hold what the aborted operation made them stage, and are about to drop it.
            self._say(f"waiting for servers to drop what an aborted operation staged: {error.message}")
            await asyncio.sleep(_POLL_S)
            return
        placement = self._plan.placement
        operation = OperationRecord(
            id=uuid.uuid4().hex,
            kind="load",
            state=OperationState.PREPARING,
            base_epoch=0,
            target_epoch=epoch,
            target_digest=placement.digest,
            owner=self._owner,
        )
        document_key = self._keys.placement(self._model, epoch)
        compares = [
            *self._compares(lock, found),
            Compare(self._keys.current(self._model), version=found.current_version),
            Compare(document_key, version=ABSENT),
        ]
        operation_key = self._keys.operation(self._model)
        await self._store.transact(
            compares, [Put(document_key, placement.to_bytes()), Put(operation_key, operation.to_bytes())]
        )
        self._taken_up.add(operation.id)

    async def _abort(self, lock: Lock, found: Found, reason: str) -> None:
        assert found.operation is not None
        aborted = replace(found.operation, state=OperationState.ABORTED, error=reason)
        await self._store.transact(
            self._compares(lock, found), [Put(self._keys.operation(self._model), aborted.to_bytes())]
        )
        self._aborted = True

    async def _commit(self, lock: Lock, found: Found, step: Commit) -> None:
        """Make the target current: the point of no return, one transaction."""
        assert found.operation is not None
        placement, operation = step.placement, found.operation
        current = CurrentRecord(
            generation=found.generation,
            epoch=placement.epoch,
            digest=placement.digest,
            operation=operation.id,
            versions=placement.versions,
        )
        audit = AuditRecord(
            operation.id, self._owner, f"load {self._model}", f"epoch {placement.epoch} is current", self._model
        )
        compares = [
            *self._compares(lock, found),
            Compare(self._keys.current(self._model), version=found.current_version),
            *found.still_there(self._keys, step.ready),
        ]
        done = replace(operation, state=OperationState.DONE)
        await self._store.transact(
            compares,
            [
                Put(self._keys.current(self._model), current.to_bytes()),
                Put(self._keys.operation(self._model), done.to_bytes()),
                audit_put(self._keys, self._clock, audit),
            ],
        )
        self._changed = True

    def _compares(self, lock: Lock, found: Found) -> list[Compare]:
        return [lock.compare, Compare(self._keys.operation(self._model), version=found.operation_version)]

    def _say(self, text: str) -> None:
        if text != self.waiting:
            self.waiting = text
            self._progress(text)
