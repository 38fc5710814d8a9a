"""Follows the cluster's records and hands out immutable snapshots; goes on with the last one when the store is gone.

One task lists at a revision, watches from there, and lists again every 30 s ± 50 % and after any trouble. All of it
runs on the event loop that called `start`; snapshots may be read from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from placement.keys import Keys
from placement.routing_records import Records, with_records
from placement.snapshot import ClusterSnapshot, MemberView, ModelView, apply, replace_all
from placement.store import Store, WatchLostError
from placement.tasks import end
from tessera.clock import Clock, SystemClock
from tessera.errors import DeadlineExceededError, TesseraError

__all__ = ["ClusterSnapshot", "ClusterView", "MemberView", "ModelView", "ViewReading", "ViewStatus"]

_log = logging.getLogger("placement.view")

RELIST_INTERVAL_S = 30.0
MIN_BACKOFF_S = 0.05
MAX_BACKOFF_S = 5.0

Subscriber = Callable[[ClusterSnapshot], None]


@dataclass(frozen=True)
class ViewStatus:
    """How the view stands.

    Attributes:
        connected: the last exchange with the store went well.
        last_contact_age_s: seconds since the store was last heard of; None if it never was.
        relists: reason → how many full listings were made for it.
        problems: how many problems appeared since start (`ClusterSnapshot.problems` has those of now).
        connected_for_s: seconds since when it was always connected; None while it is not.
    """

    connected: bool
    last_contact_age_s: float | None
    relists: Mapping[str, int]
    problems: int
    connected_for_s: float | None = None


@dataclass(frozen=True)
class ViewReading:
    """A snapshot, and how the view stood when it was read."""

    snapshot: ClusterSnapshot
    status: ViewStatus


class ClusterView:
    """A live `ClusterSnapshot`.

    Args:
        store: what to follow; not closed by the view.
        keys: of the cluster.
        initial: what to begin with until the store was read, for example from `placement.disk_cache`.
        relist_interval_s: mean time between full listings.
        clock: for ages and deadlines.
        rng: spreads listings and backoff.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        initial: ClusterSnapshot | None = None,
        relist_interval_s: float = RELIST_INTERVAL_S,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._snapshot = initial or ClusterSnapshot()
        self._relist_interval_s = relist_interval_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._subscribers: list[Subscriber] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connected = False
        self._connected_s = 0.0
        self._last_contact_s: float | None = None
        self._relists: Counter[str] = Counter()
        self._problems = 0

    @property
    def snapshot(self) -> ClusterSnapshot:
        """The newest snapshot; never waits."""
        return self._snapshot

    @property
    def status(self) -> ViewStatus:
        """How the view stands now."""
        now_s = self._clock.monotonic_s()
        age_s = None if self._last_contact_s is None else now_s - self._last_contact_s
        for_s = now_s - self._connected_s if self._connected else None
        return ViewStatus(self._connected, age_s, dict(self._relists), self._problems, for_s)

    def read(self) -> ViewReading:
        """Return what is known and how the view stands; from any thread."""
        return ViewReading(self._snapshot, self.status)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` on the event loop after every change, with the new snapshot; return what ends that.

        It must not block. It is not called for the snapshot that is there already.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback) if callback in self._subscribers else None

    def offer(self, records: Records) -> list[str]:
        """Take up routing records that were heard of elsewhere, as far as they are newer; return the models.

        Raises:
            DataLossError: a record is damaged; nothing was taken up.
        """
        snapshot, newer = with_records(self._keys, self._snapshot, records)
        if newer or snapshot.members.keys() != self._snapshot.members.keys():
            self._snapshot = snapshot
            self._tell()
        return newer

    async def wait_for(self, predicate: Callable[[ClusterSnapshot], bool], timeout_s: float) -> ClusterSnapshot:
        """Return the first snapshot, from the present one on, for which `predicate` holds.

        Raises:
            DeadlineExceededError: there was none within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate(self._snapshot):
                    await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceededError(
                f"cluster {self._keys.cluster}: the awaited state did not come within {timeout_s:g} s"
            ) from None
        return self._snapshot

    def start(self) -> None:
        """Begin to follow the store; returns at once. REQUIRED: a running event loop, not started yet."""
        assert self._task is None
        self._task = asyncio.create_task(self._run(), name="placement.view")
        self._task.add_done_callback(_log_crash)

    async def stop(self) -> None:
        """Stop following; the snapshot stays. May be called twice."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        reason, failures = "start", 0
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await self._list(reason)
                await self._watch()
                reason, failures = "periodic", 0
            except TesseraError as error:
                if self._clock.monotonic_s() - started_s > MAX_BACKOFF_S:
                    # It went well for a while. A watch that is lost right after each listing must not make a busy loop.
                    failures = 0
                if self._connected or failures == 0:
                    _log.warning("cluster %s: following the store failed: %s", self._keys.cluster, error.message)
                reason = error.reason if isinstance(error, WatchLostError) else "error"
                self._connected = False
                limit_s = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2.0 ** min(failures, 10))
                failures += 1
                await asyncio.sleep(self._rng.uniform(MIN_BACKOFF_S / 2, limit_s))

    async def _list(self, reason: str) -> None:
        self._relists[reason] += 1
        listing = await self._store.list_prefix(self._keys.prefix)
        self._heard()
        self._publish(replace_all(self._keys, self._snapshot, listing))

    async def _watch(self) -> None:
        """Follow changes until the next listing is due."""
        due_s = self._relist_interval_s * self._rng.uniform(0.5, 1.5)
        watch = self._store.watch(self._keys.prefix, self._snapshot.revision)
        async with contextlib.aclosing(watch):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    async for batch in watch:
                        self._heard()
                        if batch.events:
                            self._publish(apply(self._keys, self._snapshot, batch.events))

    def _heard(self) -> None:
        if not self._connected:
            _log.info("cluster %s: following the store", self._keys.cluster)
            self._connected_s = self._clock.monotonic_s()
        self._connected = True
        self._last_contact_s = self._clock.monotonic_s()

    def _publish(self, snapshot: ClusterSnapshot) -> None:
        old, self._snapshot = self._snapshot, snapshot
        for key, problem in snapshot.problems.items():
            if old.problems.get(key) != problem:
                self._problems += 1
                _log.error("cluster %s: %s", self._keys.cluster, problem)
        if snapshot.entries != old.entries or old.revision == 0:
            self._tell()

    def _tell(self) -> None:
        """Wake those who wait, and call the subscribers."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        loop = asyncio.get_running_loop()
        for callback in self._subscribers:
            loop.call_soon(callback, self._snapshot)


def _log_crash(task: asyncio.Task[None]) -> None:
    """Say at once that a view has died of a bug; its snapshot would only grow old silently."""
    if not task.cancelled() and task.exception() is not None:
        _log.critical("following the store has ended by a bug", exc_info=task.exception())
