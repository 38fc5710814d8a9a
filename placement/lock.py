"""A lock in the store that is only a courtesy: what protects a write is comparing its fencing token along with it."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from placement.records import LockRecord
from placement.store import ABSENT, Compare, Store
from placement.tasks import end
from tessera.errors import AbortedError, FailedPreconditionError, NotFoundError, TesseraError

_log = logging.getLogger("placement.lock")

LOCK_TTL_S = 15
_POLL_S = 0.25


class Lock:
    """Holds `key` while in `async with`.

    Args:
        owner: says to others who holds it.
        wait_s: how long to wait for another holder; 0 refuses at once.

    Raises (on entering):
        FailedPreconditionError: somebody else holds it; names them.
    """

    def __init__(self, store: Store, key: str, owner: str, *, wait_s: float = 0.0, ttl_s: int = LOCK_TTL_S) -> None:
        self._store, self._key, self._owner = store, key, owner
        self._wait_s, self._ttl_s = wait_s, ttl_s
        self._lease = self._token = 0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def compare(self) -> Compare:
        """What every transaction under this lock has to compare: fails once the lock was lost, even if taken again."""
        assert self._token, "the lock is not held"
        return Compare(self._key, created=self._token)

    async def __aenter__(self) -> Self:
        self._lease = await self._store.grant_lease(self._ttl_s)
        value = LockRecord(self._owner).to_bytes()
        try:
            deadline_s = asyncio.get_running_loop().time() + self._wait_s
            while True:
                try:
                    self._token = await self._store.put(self._key, value, expected=ABSENT, lease=self._lease)
                    break
                except AbortedError:
                    await self._wait_or_refuse(deadline_s)
        except BaseException:
            await self._release()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="placement.lock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        await end(self._keeper)
        await self._release()

    async def _wait_or_refuse(self, deadline_s: float) -> None:
        entry = await self._store.get(self._key)
        if entry is None:
            return
        if asyncio.get_running_loop().time() >= deadline_s:
            holder = LockRecord.from_bytes(entry.value, self._key).owner
            raise FailedPreconditionError(
                f"{self._key}: held by {holder}; it is free within {self._ttl_s} s of its end"
            )
        await self._store.keep_lease(self._lease)
        await asyncio.sleep(_POLL_S)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._store.keep_lease(self._lease)
            except NotFoundError:
                _log.error("%s: the lock was lost; the next write under it will be refused", self._key)
                return
            except TesseraError as error:
                _log.warning("%s: keeping the lock failed: %s", self._key, error.message)

    async def _release(self) -> None:
        try:
            await self._store.revoke_lease(self._lease)
        except TesseraError as error:
            _log.warning(
                "%s: releasing the lock failed, it ends by itself in %d s: %s", self._key, self._ttl_s, error.message
            )
