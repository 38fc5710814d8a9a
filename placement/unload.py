"""Takes a model out of service: the pointer says that nothing is current, and everyone drops what only it needed.

It is an operation that begins at COMMITTED: there is nothing to prepare, and from the first write on requests find no
such model. What follows is what follows every commit (`placement.change_steps`): the servers keep what requests that
run still ask for until no router has one. The pointer stays, so that a process that was away learns of it, and so that
no epoch is used twice.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from placement.audit import audit_put
from placement.change import ChangeDriver, Progress
from placement.found import Found, Reader
from placement.keys import Keys
from placement.lock import LOCK_TTL_S, Lock
from placement.records import AuditRecord, OperationRecord, OperationState, TrafficRecord
from placement.store import Compare, Put, Store
from tessera.clock import Clock, SystemClock
from tessera.errors import FailedPreconditionError, NotFoundError

KIND = "unload"


async def unload_model(
    store: Store,
    keys: Keys,
    model: str,
    *,
    owner: str,
    timeout_s: float,
    wait: bool = True,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> OperationRecord:
    """Unload `model`; return the operation when servers have dropped it, or, without `wait`, as it was written.

    Raises:
        NotFoundError: the model has no placement.
        FailedPreconditionError: an operation is under way, or another driver holds the lock.
        AbortedError: somebody changed the model meanwhile; nothing was written.
        DeadlineExceededError: `timeout_s` ran out; the operation stays as it is, and is resumed as others are.
        UnavailableError: the store does not answer.
    """
    async with Lock(store, keys.lock(model), owner, wait_s=LOCK_TTL_S + 2.0) as lock:
        found = await Reader(store, keys, model).read()
        check_unload(found)
        written = await _write(store, keys, found, lock.compare, owner, clock or SystemClock())
    if not wait:
        return written
    driver = ChangeDriver(store, keys, model, owner=owner, progress=progress, clock=clock)
    return await driver.resume(timeout_s=timeout_s)


def check_unload(found: Found) -> None:
    """Refuse to unload what is not there, or is just being changed.

    Raises:
        NotFoundError, FailedPreconditionError: see `unload_model`.
    """
    if (operation := found.operation) is not None and operation.active:
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} ({operation.command or operation.kind}, "
            f"{operation.state.value}) of {operation.owner} is under way; see `tessera reshard status`"
        )
    if found.current_placement is None:
        raise NotFoundError(f"model {found.model}: has no placement; there is nothing to unload")


async def _write(store: Store, keys: Keys, found: Found, lock: Compare, owner: str, clock: Clock) -> OperationRecord:
    """Write operation and pointer at once; both compare what they replace."""
    current, base, model = found.current, found.current_placement, found.model
    assert current is not None
    assert base is not None
    operation = OperationRecord(
        id=uuid.uuid4().hex,
        kind=KIND,
        state=OperationState.COMMITTED,
        base_epoch=base.epoch,
        target_epoch=found.last_epoch + 1,
        target_digest="",
        owner=owner,
        base_digest=base.digest,
        origin_epoch=base.epoch,
        routers=tuple(sorted({*found.routers, *found.known_routers})),
        command=f"model unload {model}",
        origin_versions=current.versions,
        origin_traffic=current.traffic,
    )
    pointer = replace(
        current,
        generation=found.generation,
        epoch=operation.target_epoch,
        digest="",
        operation=operation.id,
        versions=(),
        traffic=TrafficRecord(),
    )
    audit = AuditRecord(operation.id, owner, operation.command, f"unloaded as of epoch {pointer.epoch}", model)
    await store.transact(
        [
            lock,
            Compare(keys.operation(model), version=found.operation_version),
            Compare(keys.current(model), version=found.current_version),
        ],
        [
            Put(keys.operation(model), operation.to_bytes()),
            Put(keys.current(model), pointer.to_bytes()),
            audit_put(keys, clock, audit),
        ],
    )
    return operation
