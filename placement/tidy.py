"""Removes what nobody needs any more from the store: old placements, reports of other epochs, old audit entries."""

from __future__ import annotations

from placement.keys import Keys, Kind
from placement.store import Delete, Store

KEPT_PLACEMENTS = 16
KEPT_AUDITS = 256
_DELETES = 100


async def tidy(store: Store, keys: Keys, model: str, current_epoch: int, *, keep: frozenset[int] = frozenset()) -> None:
    """Remove it for one model, whose operation must have ended; the documents of the epochs in `keep` stay.

    Raises:
        UnavailableError, DeadlineExceededError: the store does not answer; the next operation comes by again.
    """
    surplus: list[str] = []
    documents: list[str] = []
    for entry in (await store.list_prefix(keys.model(model))).entries:
        parsed = keys.parse(entry.key)
        if parsed is not None and parsed.kind is Kind.PLACEMENT and parsed.epoch < current_epoch:
            if parsed.epoch not in keep:
                documents.append(entry.key)
        elif parsed is not None and parsed.kind is Kind.READY and parsed.epoch < current_epoch:
            surplus.append(entry.key)
    surplus += documents[: -(KEPT_PLACEMENTS - 1)]
    surplus += [entry.key for entry in (await store.list_prefix(keys.audits)).entries][:-KEPT_AUDITS]
    for start in range(0, len(surplus), _DELETES):
        await store.transact([], [Delete(key) for key in surplus[start : start + _DELETES]])
