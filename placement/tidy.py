"""Removes what nobody needs any more from the store: old placements, reports of other epochs, old audit entries."""

from __future__ import annotations

from placement.audit import trim_audits
from placement.keys import Keys, Kind
from placement.records import CurrentRecord
from placement.store import Delete, Store

KEPT_PLACEMENTS = 16
_DELETES = 100


async def tidy(store: Store, keys: Keys, model: str, current_epoch: int, *, keep: frozenset[int] = frozenset()) -> None:
    """Remove it for one model, whose operation must have ended; the documents of the epochs in `keep` stay.

    Of a model that was unloaded all documents go.

    Raises:
        UnavailableError, DeadlineExceededError: the store does not answer; the next operation comes by again.
    """
    surplus: list[str] = []
    unloaded = False
    documents: list[str] = []
    for entry in (await store.list_prefix(keys.model(model))).entries:
        parsed = keys.parse(entry.key)
        if parsed is not None and parsed.kind is Kind.CURRENT:  # sorts before the documents
            unloaded = CurrentRecord.from_bytes(entry.value, entry.key).unloaded
        if parsed is not None and parsed.kind is Kind.PLACEMENT and parsed.epoch < current_epoch:
            if unloaded:
                surplus.append(entry.key)
            elif parsed.epoch not in keep:
                documents.append(entry.key)
        elif parsed is not None and parsed.kind is Kind.READY and parsed.epoch < current_epoch:
            surplus.append(entry.key)
    surplus += documents[: -(KEPT_PLACEMENTS - 1)]
    for start in range(0, len(surplus), _DELETES):
        await store.transact([], [Delete(key) for key in surplus[start : start + _DELETES]])
    await trim_audits(store, keys)
