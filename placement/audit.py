"""The audit: one entry for each thing that a command changed, written in the transaction that changes it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from placement.keys import Keys
from placement.records import AuditRecord
from placement.store import Compare, Delete, Put, Store
from tessera.clock import Clock, SystemClock

KEPT_AUDITS = 256
_DELETES = 100


def audit_put(keys: Keys, clock: Clock, record: AuditRecord) -> Put:
    """Return the write of an entry, to be made together with what it tells of."""
    return Put(keys.audit(int(clock.wall_s() * 1000), record.operation), record.to_bytes())


async def write_audited(
    store: Store,
    keys: Keys,
    compares: Sequence[Compare],
    operations: Sequence[Put | Delete],
    *,
    owner: str,
    command: str,
    result: str,
    model: str = "",
    clock: Clock | None = None,
) -> None:
    """Make a change that is no operation, with its entry, and drop entries that are too old.

    Args:
        store: not closed.
        keys: of the cluster.
        compares: what the change rests on.
        operations: the change.
        owner: who asks.
        command: what was asked for, in words.
        result: what it did, in words.
        model: what it changed; empty when that is no model.
        clock: for the time of the entry.

    Raises:
        AbortedError: a comparison does not hold: somebody else changed it meanwhile; nothing was written.
        UnavailableError, DeadlineExceededError: the store does not answer.
    """
    record = AuditRecord(uuid.uuid4().hex, owner, command, result, model)
    await store.transact(compares, [*operations, audit_put(keys, clock or SystemClock(), record)])
    await trim_audits(store, keys)


async def trim_audits(store: Store, keys: Keys) -> None:
    """Drop all but the newest `KEPT_AUDITS` entries.

    Raises:
        UnavailableError, DeadlineExceededError: the store does not answer; the next change comes by again.
    """
    surplus = [entry.key for entry in (await store.list_prefix(keys.audits)).entries][:-KEPT_AUDITS]
    for start in range(0, len(surplus), _DELETES):
        await store.transact([], [Delete(key) for key in surplus[start : start + _DELETES]])
