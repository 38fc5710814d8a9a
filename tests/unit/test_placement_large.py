"""Changes of more servers than a transaction can compare."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from placement.change import Change, ChangeDriver
from placement.document import PackageRef, Placement
from placement.found import MAX_COMPARED, Found, Reader
from placement.memory_store import MemoryStore
from placement.operation import load_model
from placement.records import OperationState
from placement.store import MAX_OPERATIONS, Compare, Delete, Entry, Put
from support.fake_cluster import KEYS, MODEL, REF
from support.many_servers import ManyServers

SERVERS = [f"s{number:03d}" for number in range(300)]
NEW = PackageRef(2, "2" * 64)


class CountingStore(MemoryStore):
    """Remembers how many comparisons each transaction had."""

    def __init__(self) -> None:
        super().__init__()
        self.compared: list[int] = []

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        self.compared.append(len(compares))
        return await super().transact(compares, operations)


def test_a_model_on_hundreds_of_servers_is_loaded_resharded_and_rolled_out() -> None:
    async def body() -> None:
        store = CountingStore()
        async with ManyServers(store, SERVERS):
            loaded = await load_model(
                store, KEYS, model=MODEL, versions=[REF], slot_bytes=lambda _: [100] * 600, replicas=1,
                owner="me", timeout_s=60, min_servers=len(SERVERS),
            )  # fmt: skip
            assert len(loaded.placement.servers) == len(SERVERS) > MAX_OPERATIONS
            for changes in ({"slot_servers": loaded.placement.slot_servers[::-1]}, {"versions": (NEW,)}):
                done = await _change(store, **changes)
                assert done is OperationState.DONE
            current = (await Reader(store, KEYS, MODEL).read()).current_placement
            assert current
            assert (current.epoch, current.versions) == (3, (NEW,))
        assert max(store.compared) <= MAX_OPERATIONS

    asyncio.run(body())


async def _change(store: MemoryStore, **changes: Any) -> OperationState:
    from dataclasses import replace

    found = await Reader(store, KEYS, MODEL).read()
    assert found.current_placement
    target: Placement = replace(found.current_placement, epoch=found.last_epoch + 1, **changes)
    driver = ChangeDriver(store, KEYS, MODEL, owner="me", grace_s=0.1)
    return (await driver.begin(Change(found, (target,), "reshard", "test"), timeout_s=60)).state


@pytest.mark.parametrize("count", [1, MAX_COMPARED - 1, MAX_COMPARED, 1000])
def test_up_to_a_number_of_servers_each_report_is_compared(count: int) -> None:
    found = Found(MODEL, members_revision=77)
    ready = [Entry(KEYS.ready(MODEL, 2, f"s{number}"), b"", 9, 8) for number in range(count)]
    compares = found.still_there(KEYS, ready, [("gone", 5)])
    if count < MAX_COMPARED:
        assert [one.created for one in compares] == [8] * count + [5]
    else:
        assert compares == [Compare(KEYS.members, none_created_after=77)]
    assert len(compares) <= MAX_COMPARED
