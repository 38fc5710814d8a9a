from __future__ import annotations

import pytest

from placement.memory_store import MemoryStore
from placement.snapshot import ClusterSnapshot, replace_all
from router.heard import newer_placements, with_heard
from support.fake_cluster import KEYS, MODEL, make_current, make_placement


async def _snapshot() -> ClusterSnapshot:
    store = MemoryStore()
    await make_current(store, make_placement(3, "ab"))
    return replace_all(KEYS, ClusterSnapshot(), await store.list_prefix(KEYS.prefix))


@pytest.fixture
def snapshot() -> ClusterSnapshot:
    import asyncio

    return asyncio.run(_snapshot())


def test_only_a_newer_placement_of_a_known_model_is_taken(snapshot: ClusterSnapshot) -> None:
    newer, same = make_placement(4, "bc"), make_placement(3, "bc")
    assert newer_placements(snapshot, {MODEL: newer.to_bytes()}) == {MODEL: newer}
    for documents in ({MODEL: same.to_bytes()}, {"other": newer.to_bytes()}, {MODEL: b"junk"}, {}):
        assert newer_placements(snapshot, documents) == {}


def test_what_was_heard_stands_until_the_store_says_as_much(snapshot: ClusterSnapshot) -> None:
    newer = make_placement(4, "bc")
    told = with_heard(snapshot, {MODEL: newer})
    assert told.models[MODEL].placement == newer
    assert snapshot.models[MODEL].placement == make_placement(3, "ab")
    later = with_heard(told, {MODEL: make_placement(2, "a"), "other": newer})
    assert later == told
