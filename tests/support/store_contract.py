"""The contract of `placement.store.Store`, as tests. A test class for one store inherits from this and gives `harness`.

Written from the contract, not from one implementation: a watch may repeat changes and may skip values that were
overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from placement.store import (
    ABSENT,
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Batch,
    Compare,
    Delete,
    Event,
    Put,
    Store,
    WatchLostError,
)
from tessera.errors import AbortedError, InvalidArgumentError, NotFoundError, UnavailableError

WAIT_S = 10.0


@dataclass
class Harness:
    """What a test needs of a store.

    Attributes:
        open: returns a new connection to one and the same store.
        root: prefix that only this test uses.
        compact: forgets the changes up to a revision.
        advance: lets so many seconds pass for leases.
    """

    open: Callable[[], Store]
    root: str
    compact: Callable[[int], None]
    advance: Callable[[float], Any]

    def run(self, test: Callable[[Store, str], Any]) -> None:
        """Run one asynchronous test on a store of its own."""

        async def body() -> None:
            store = self.open()
            try:
                async with asyncio.timeout(30):
                    await test(store, self.root)
            finally:
                await store.close()

        asyncio.run(body())


async def collect(store: Store, prefix: str, after: int, done: Callable[[list[Event]], bool]) -> list[Event]:
    """Return the events of a watch until `done` holds of them."""
    events: list[Event] = []
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(store.watch(prefix, after)) as watch:
        async for batch in watch:
            events += batch.events
            if done(events):
                return events
    raise AssertionError("the watch ended without an error")


def last_values(events: list[Event]) -> dict[str, bytes | None]:
    return {event.key: event.entry.value if event.entry else None for event in events}


class StoreContract:
    """Every test gets the fixture `harness`."""

    def test_a_missing_key_is_none_and_an_empty_prefix_lists_nothing(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            assert await store.get(root + "a") is None
            listing = await store.list_prefix(root)
            assert listing.entries == ()
            assert listing.revision > 0

        harness.run(body)

    def test_put_then_get_gives_value_and_version(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            first = await store.put(root + "a", b"1")
            second = await store.put(root + "a", b"\x00\xff")
            entry = await store.get(root + "a")
            assert entry is not None
            assert (entry.key, entry.value, entry.version, entry.created, entry.lease) == (
                root + "a", b"\x00\xff", second, first, 0,
            )  # fmt: skip
            assert second > first

        harness.run(body)

    def test_list_is_sorted_and_only_of_the_prefix(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            for name in ("b/2", "b/10", "b", "c", "b/é"):
                await store.put(root + name, name.encode())
            listing = await store.list_prefix(root + "b/")
            assert [entry.key for entry in listing.entries] == [root + "b/10", root + "b/2", root + "b/é"]
            assert listing.revision >= max(entry.version for entry in listing.entries)

        harness.run(body)

    def test_a_long_list_is_whole(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            keys = [f"{root}{i:05d}" for i in range(1203)]
            for start in range(0, len(keys), 100):
                await store.transact([], [Put(key, b"x") for key in keys[start : start + 100]])
            assert [entry.key for entry in (await store.list_prefix(root)).entries] == keys

        harness.run(body)

    def test_create_only_if_absent(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            version = await store.put(root + "a", b"1", expected=ABSENT)
            with pytest.raises(AbortedError, match="a"):
                await store.put(root + "a", b"2", expected=ABSENT)
            assert await store.delete(root + "a", expected=version)
            assert await store.put(root + "a", b"3", expected=ABSENT) > version

        harness.run(body)

    def test_compare_and_swap_takes_the_version_of_get_list_and_put(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            version = await store.put(root + "a", b"1")
            entry = await store.get(root + "a")
            assert entry is not None
            await store.put(root + "a", b"2", expected=entry.version)
            with pytest.raises(AbortedError):
                await store.put(root + "a", b"3", expected=version)
            (listed,) = (await store.list_prefix(root)).entries
            newest = await store.put(root + "a", b"4", expected=listed.version)
            await store.put(root + "a", b"5", expected=newest)

        harness.run(body)

    def test_compare_and_swap_takes_the_version_of_a_watch_event(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            for value in (b"1", b"2", b"3"):
                await store.put(root + "a", value)
            events = await collect(store, root, start, lambda e: last_values(e).get(root + "a") == b"3")
            assert events[-1].entry is not None
            assert events[-1].version == events[-1].entry.version
            await store.put(root + "a", b"4", expected=events[-1].version)
            entry = await store.get(root + "a")
            assert entry is not None
            assert entry.value == b"4"

        harness.run(body)

    def test_delete_says_whether_the_key_was_there(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            version = await store.put(root + "a", b"1")
            with pytest.raises(AbortedError):
                await store.delete(root + "a", expected=version + 1)
            assert await store.delete(root + "a") is True
            assert await store.delete(root + "a") is False
            assert await store.get(root + "a") is None

        harness.run(body)

    def test_a_transaction_is_all_or_nothing_at_one_revision(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            a = await store.put(root + "a", b"1")
            await store.put(root + "gone", b"1")
            revision = await store.transact(
                [Compare(root + "a", version=a), Compare(root + "b", version=ABSENT), Compare(root + "a", created=a)],
                [Put(root + "a", b"2"), Put(root + "b", b"2"), Delete(root + "gone")],
            )
            assert [(e.key, e.version) for e in (await store.list_prefix(root)).entries] == [
                (root + "a", revision),
                (root + "b", revision),
            ]
            with pytest.raises(AbortedError):
                await store.transact(
                    [Compare(root + "a", version=revision), Compare(root + "b", version=ABSENT)],
                    [Put(root + "a", b"3"), Put(root + "c", b"3")],
                )
            assert await store.get(root + "c") is None

        harness.run(body)

    def test_nothing_created_since_is_one_comparison_for_a_whole_prefix(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            for name in ("m/a", "m/b", "n/z"):
                await store.put(root + name, b"1")
            read = (await store.list_prefix(root + "m/")).revision
            since = Compare(root + "m/", none_created_after=read)
            await store.put(root + "m/a", b"changed")
            await store.put(root + "n/y", b"elsewhere")
            await store.delete(root + "m/b")
            await store.transact([since], [Put(root + "x", b"1")])
            await store.put(root + "m/b", b"again")
            with pytest.raises(AbortedError, match=r"x|m/"):
                await store.transact([since], [Put(root + "x", b"2")])
            empty = Compare(root + "nothing/", none_created_after=read)
            await store.transact([empty], [Put(root + "x", b"3")])
            with pytest.raises(InvalidArgumentError, match="exactly one field"):
                Compare(root, version=1, none_created_after=1)

        harness.run(body)

    def test_created_changes_only_when_a_key_is_made_anew(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            created = await store.put(root + "lock", b"1")
            await store.put(root + "lock", b"2")
            await store.transact([Compare(root + "lock", created=created)], [Put(root + "x", b"")])
            await store.delete(root + "lock")
            await store.put(root + "lock", b"1")
            with pytest.raises(AbortedError):
                await store.transact([Compare(root + "lock", created=created)], [Put(root + "x", b"")])

        harness.run(body)

    def test_limits_are_refused_and_the_limit_itself_is_not(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            puts = [Put(f"{root}{i}", b"") for i in range(MAX_OPERATIONS + 1)]
            await store.transact([Compare(put.key, version=ABSENT) for put in puts[1:]], puts[1:])
            with pytest.raises(InvalidArgumentError, match="operations: got 129"):
                await store.transact([], puts)
            with pytest.raises(InvalidArgumentError, match="compares: got 129"):
                await store.transact([Compare(put.key, version=ABSENT) for put in puts], [])
            with pytest.raises(InvalidArgumentError, match="twice"):
                await store.transact([], [Put(root + "a", b"1"), Delete(root + "a")])
            await store.put(root + "big", bytes(MAX_VALUE_BYTES))
            with pytest.raises(InvalidArgumentError, match="1500001 bytes"):
                await store.put(root + "big", bytes(MAX_VALUE_BYTES + 1))
            with pytest.raises(InvalidArgumentError, match="key"):
                await store.get("")

        harness.run(body)

    def test_a_watch_goes_on_where_a_listing_ends(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            await store.put(root + "before", b"1")
            listing = await store.list_prefix(root)
            await store.put(root + "a", b"1")
            await store.put(root[:-1] + "x/other", b"1")
            await store.delete(root + "before")
            wanted = {root + "a": b"1", root + "before": None}
            events = await collect(store, root, listing.revision, lambda e: last_values(e) == wanted)
            assert all(event.version > listing.revision for event in events)
            assert [e.version for e in events] == sorted(e.version for e in events)

        harness.run(body)

    def test_a_watch_sees_what_comes_later(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            waiting = asyncio.create_task(collect(store, root, start, lambda e: len(last_values(e)) == 20))
            for i in range(20):
                await store.put(f"{root}{i}", b"x")
                await asyncio.sleep(0)
            await waiting

        harness.run(body)

    def test_a_transaction_comes_in_one_batch(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            revision = await store.transact([], [Put(f"{root}{i}", bytes(10_000)) for i in range(120)])
            found: Batch | None = None
            async with asyncio.timeout(WAIT_S), contextlib.aclosing(store.watch(root, start)) as watch:
                async for batch in watch:
                    if batch.events:
                        found = batch
                        break
            assert found is not None
            assert found.revision == revision
            assert len(found.events) == 120

        harness.run(body)

    def test_two_watches_both_see_everything(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            tasks = [
                asyncio.create_task(collect(store, root, start, lambda e: root + "z" in last_values(e)))
                for _ in range(2)
            ]
            await store.put(root + "a", b"1")
            await store.put(root + "z", b"1")
            first, second = await asyncio.gather(*tasks)
            assert last_values(first) == last_values(second)

        harness.run(body)

    def test_a_watch_from_before_a_compaction_is_lost(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            for i in range(5):
                newest = await store.put(root + "a", str(i).encode())
            await asyncio.to_thread(harness.compact, newest)
            with pytest.raises(WatchLostError) as lost:
                await collect(store, root, start, lambda e: False)
            assert lost.value.reason == "compacted"
            listing = await store.list_prefix(root)
            await store.put(root + "a", b"after")
            await collect(store, root, listing.revision, lambda e: last_values(e).get(root + "a") == b"after")

        harness.run(body)

    def test_a_cancelled_watch_leaves_the_store_usable(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            start = (await store.list_prefix(root)).revision
            task = asyncio.create_task(collect(store, root, start, lambda e: False))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await store.put(root + "a", b"1")
            assert await store.get(root + "a")

        harness.run(body)

    def test_a_key_goes_with_its_lease(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            lease = await store.grant_lease(1)
            await store.put(root + "a", b"1", lease=lease)
            await store.put(root + "stays", b"1")
            entry = await store.get(root + "a")
            assert entry is not None
            assert entry.lease == lease
            start = (await store.list_prefix(root)).revision
            events = asyncio.create_task(
                collect(store, root, start, lambda e: last_values(e).get(root + "a", b"") is None)
            )
            await harness.advance(1.2)
            await events
            assert [e.key for e in (await store.list_prefix(root)).entries] == [root + "stays"]
            with pytest.raises(NotFoundError):
                await store.keep_lease(lease)
            with pytest.raises(NotFoundError):
                await store.put(root + "b", b"1", lease=lease)
            await store.revoke_lease(lease)

        harness.run(body)

    def test_a_kept_lease_stays(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            lease = await store.grant_lease(2)
            await store.put(root + "a", b"1", lease=lease)
            for _ in range(4):
                await harness.advance(0.8)
                assert await store.keep_lease(lease) == 2.0
            assert await store.get(root + "a") is not None

        harness.run(body)

    def test_a_revoked_lease_takes_its_keys_at_once(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            lease = await store.grant_lease(60)
            await store.put(root + "a", b"1", lease=lease)
            await store.put(root + "b", b"1", lease=lease)
            await store.put(root + "b", b"2")
            await store.revoke_lease(lease)
            assert [e.key for e in (await store.list_prefix(root)).entries] == [root + "b"]

        harness.run(body)

    def test_a_store_may_be_closed_twice(self, harness: Harness) -> None:
        async def body(store: Store, root: str) -> None:
            await store.put(root + "a", b"1")
            await store.close()
            await store.close()
            with pytest.raises(UnavailableError, match="closed"):
                await store.get(root + "a")

        harness.run(body)
