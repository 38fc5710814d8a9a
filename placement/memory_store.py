"""A `Store` in this process's memory: for `tessera up --in-process` and for tests. Nothing survives the process.

It belongs to one event loop, as every store does; that is checked, because sharing it between threads would go wrong
silently. Everything that runs in one process shares one object. Leases end by the injected clock: by themselves
while the loop runs, and at any call that comes later; a test that moves its clock calls `expire_leases`.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from placement.store import (
    ABSENT,
    NO_LEASE,
    Batch,
    Compare,
    Delete,
    Entry,
    Event,
    Listing,
    Put,
    WatchLostError,
    check_key,
    check_transaction,
)
from tessera.clock import Clock, SystemClock
from tessera.errors import AbortedError, FailedPreconditionError, InvalidArgumentError, NotFoundError, UnavailableError

KEPT_BATCHES = 10_000
_TICK_S = 0.05


@dataclass
class _Lease:
    ttl_s: int
    ends_s: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """See the module's text and `placement.store.Store`.

    Args:
        clock: by which leases end.
        rng: for the first revision and for lease numbers: two stores never agree by luck.
        kept_batches: how many writes a watch may be behind before it is lost as compacted.
    """

    def __init__(
        self, *, clock: Clock | None = None, rng: random.Random | None = None, kept_batches: int = KEPT_BATCHES
    ) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._revision = self._rng.randrange(1_000, 1_000_000)
        self._compacted = self._revision
        self._entries: dict[str, Entry] = {}
        self._leases: dict[int, _Lease] = {}
        self._history: deque[Batch] = deque(maxlen=kept_batches)
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        self._enter()
        check_key(key)
        return self._entries.get(key)

    async def list_prefix(self, prefix: str) -> Listing:
        """See `Store.list_prefix`."""
        self._enter()
        entries = tuple(self._entries[key] for key in sorted(self._entries) if key.startswith(prefix))
        return Listing(entries, self._revision)

    async def put(self, key: str, value: bytes, *, expected: int | None = None, lease: int = NO_LEASE) -> int:
        """See `Store.put`."""
        compares = [] if expected is None else [Compare(key, version=expected)]
        return await self.transact(compares, [Put(key, value, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `Store.delete`."""
        self._enter()
        existed = key in self._entries
        compares = [] if expected is None else [Compare(key, version=expected)]
        await self.transact(compares, [Delete(key)])
        return existed

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        """See `Store.transact`."""
        self._enter()
        check_transaction(compares, operations)
        for compare in compares:
            self._check(compare)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease != NO_LEASE and operation.lease not in self._leases:
                raise NotFoundError(f"{operation.key}: lease {operation.lease} has ended")
        self._write(operations)
        return self._revision

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        self._enter()
        while True:
            if after_revision < self._compacted:
                raise WatchLostError(
                    "compacted", f"{prefix}: revision {after_revision} is gone, the oldest is {self._compacted}"
                )
            start = bisect_right(self._history, after_revision, key=lambda batch: batch.revision)
            for batch in list(self._history)[start:]:
                after_revision = batch.revision
                events = tuple(event for event in batch.events if event.key.startswith(prefix))
                if events:
                    yield Batch(events, batch.revision)
            if after_revision < self._revision:
                continue
            await self._changed.wait()
            if self._closed:
                raise WatchLostError("ended", f"{prefix}: the store was closed")

    async def grant_lease(self, ttl_s: int) -> int:
        """See `Store.grant_lease`."""
        self._enter()
        if ttl_s < 1:
            raise InvalidArgumentError(f"ttl_s: got {ttl_s}, expected at least 1")
        lease = self._rng.randrange(1, 1 << 62)
        self._leases[lease] = _Lease(ttl_s, self._clock.monotonic_s() + ttl_s)
        self._arm()
        return lease

    async def keep_lease(self, lease: int) -> float:
        """See `Store.keep_lease`."""
        self._enter()
        held = self._leases.get(lease)
        if held is None:
            raise NotFoundError(f"lease {lease} has ended")
        held.ends_s = self._clock.monotonic_s() + held.ttl_s
        return held.ttl_s

    async def revoke_lease(self, lease: int) -> None:
        """See `Store.revoke_lease`."""
        self._enter()
        self._end_lease(lease)

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._changed.set()

    def expire_leases(self) -> None:
        """End the leases whose time has passed."""
        now_s = self._clock.monotonic_s()
        for lease in [lease for lease, held in self._leases.items() if held.ends_s <= now_s]:
            self._end_lease(lease)

    def compact(self, revision: int) -> None:
        """Forget the changes up to `revision`, as etcd does from time to time: watches from before are lost."""
        self._compacted = max(self._compacted, revision)
        while self._history and self._history[0].revision <= revision:
            self._history.popleft()

    def _enter(self) -> None:
        """Check the rules of every call."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if loop is not self._loop:
            raise FailedPreconditionError("the memory store belongs to another event loop; each store has exactly one")
        if self._closed:
            raise UnavailableError("the memory store is closed")
        self.expire_leases()

    def _check(self, compare: Compare) -> None:
        """Raise AbortedError if `compare` does not hold."""
        if compare.none_created_after is not None:
            newest = max((e.created for key, e in self._entries.items() if key.startswith(compare.key)), default=ABSENT)
            if newest > compare.none_created_after:
                raise AbortedError(f"{compare.key}: got a key created at {newest}, expected {compare.wanted}")
            return
        entry = self._entries.get(compare.key)
        version, created = (entry.version, entry.created) if entry else (ABSENT, ABSENT)
        if compare.version not in (None, version) or compare.created not in (None, created):
            raise AbortedError(f"{compare.key}: got version {version} created at {created}, expected {compare.wanted}")

    def _write(self, operations: Sequence[Put | Delete]) -> None:
        revision = self._revision + 1
        events: list[Event] = []
        for operation in operations:
            old = self._entries.get(operation.key)
            if old is not None and old.lease in self._leases:
                self._leases[old.lease].keys.discard(operation.key)
            if isinstance(operation, Put):
                created = old.created if old else revision
                entry = Entry(operation.key, bytes(operation.value), revision, created, operation.lease)
                self._entries[operation.key] = entry
                if operation.lease != NO_LEASE:
                    self._leases[operation.lease].keys.add(operation.key)
                events.append(Event(operation.key, entry, revision))
            elif old is not None:
                del self._entries[operation.key]
                events.append(Event(operation.key, None, revision))
        if not events:
            return
        self._revision = revision
        if len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].revision
        self._history.append(Batch(tuple(events), revision))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _end_lease(self, lease: int) -> None:
        held = self._leases.pop(lease, None)
        if held is not None:
            self._write([Delete(key) for key in sorted(held.keys)])

    def _arm(self) -> None:
        """Look at the leases again soon, as long as there are any."""
        if self._timer is None and self._leases and not self._closed:
            assert self._loop is not None
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.expire_leases()
        self._arm()
