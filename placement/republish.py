"""Makes placements current again after the store was lost or went back: under a new generation, hence new epochs.

What servers and routers have seen of the old store counts for nothing then: every epoch of the new generation is above
all of theirs.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from placement.audit import audit_put
from placement.keys import Keys
from placement.records import (
    FIRST_GENERATION,
    SCHEMA_VERSION,
    AuditRecord,
    CurrentRecord,
    MetaRecord,
    OperationRecord,
    OperationState,
    Placement,
    epochs_before,
)
from placement.store import ABSENT, Compare, Put, Store
from tessera.clock import Clock

_WRITES = 100


@dataclass(frozen=True)
class Republished:
    """The generation that has begun, and what is current in it."""

    generation: int
    pointers: Mapping[str, CurrentRecord]


async def begin_generation(store: Store, keys: Keys, *, above: int) -> int:
    """Write the next generation into the cluster's record, and return it.

    Args:
        store: not closed.
        keys: of the cluster.
        above: the highest generation that anybody has seen, as far as is known.

    Raises:
        AbortedError: somebody else did at the same moment.
        UnavailableError, DeadlineExceededError: the store does not answer.
        DataLossError: the cluster's record is damaged.
    """
    entry = await store.get(keys.meta)
    meta = MetaRecord(uuid.uuid4().hex, SCHEMA_VERSION, FIRST_GENERATION)
    if entry is not None:
        meta = MetaRecord.from_bytes(entry.value, entry.key)
    meta = replace(meta, generation=max(meta.generation, above) + 1)
    await store.put(keys.meta, meta.to_bytes(), expected=entry.version if entry else ABSENT)
    return meta.generation


async def put_all(store: Store, entries: Mapping[str, bytes]) -> None:
    """Write `entries`, whatever was there; not as a whole, so only what nobody acts on before `republish`.

    Raises:
        UnavailableError, DeadlineExceededError: the store does not answer; call again.
    """
    puts = [Put(key, value) for key, value in sorted(entries.items())]
    for start in range(0, len(puts), _WRITES):
        await store.transact([], puts[start : start + _WRITES])


async def republish(
    store: Store,
    keys: Keys,
    generation: int,
    placements: Mapping[str, tuple[CurrentRecord, Placement | None]],
    operations: Mapping[str, OperationRecord],
    *,
    owner: str,
    command: str,
    clock: Clock,
) -> Republished:
    """Make `placements` current, one model after the other, under the first epoch of `generation`.

    Args:
        store: not closed.
        keys: of the cluster.
        generation: as `begin_generation` gave it.
        placements: model → its pointer and placement (None: unloaded), with the epoch that they had.
        operations: model → the operation that is to be there, as it was; one that was under way has ended now.
        owner: who asks, for the records.
        command: what was asked for, in words.
        clock: for the audit's time.

    Raises:
        AbortedError: somebody else writes at the same time.
        UnavailableError, DeadlineExceededError: the store does not answer; begin anew, with another generation.
    """
    identity = uuid.uuid4().hex
    done = {}
    for model, (old, document) in sorted(placements.items()):
        epoch = epochs_before(generation) + 1
        current = replace(old, generation=generation, epoch=epoch, operation=identity)
        record = AuditRecord(uuid.uuid4().hex, owner, command, f"epoch {epoch} is current", model)
        puts = [audit_put(keys, clock, record)]
        if document is not None:
            placement = replace(document, epoch=epoch)
            current = replace(current, digest=placement.digest)
            puts.append(Put(keys.placement(model, epoch), placement.to_bytes()))
        puts.append(Put(keys.current(model), current.to_bytes()))
        if model in operations:
            puts.append(Put(keys.operation(model), ended(operations[model], old.epoch, command).to_bytes()))
        await store.transact([Compare(keys.placement(model, epoch), version=ABSENT)], puts)
        done[model] = current
    return Republished(generation, done)


def ended(operation: OperationRecord, epoch: int, why: str) -> OperationRecord:
    """Return an operation as it ends where `epoch` is what counts: done if that is its target or later."""
    if not operation.active:
        return operation
    if operation.target_epoch <= epoch:
        return replace(operation, state=OperationState.DONE, later_digests=(), paused=False)
    return replace(operation, state=OperationState.ABORTED, error=f"ended by {why}", paused=False)
