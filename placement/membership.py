"""Keeps one record of this process (a member or a router) in the store, under a lease.

The record is desired state: `update` may be called with the store gone, and what it set is written when the store is
back. Losing
the lease never stops the process: it registers again.
"""

from __future__ import annotations

import asyncio
import json
import logging

from placement.keys import Keys
from placement.records import MemberRecord, Placement, ReadyRecord, RouterRecord
from placement.store import ABSENT, NO_LEASE, Compare, Entry, Put, Store
from placement.tasks import end
from tessera.errors import (
    AbortedError,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    TesseraError,
    UnavailableError,
)

_log = logging.getLogger("placement.membership")

LEASE_TTL_S = 10
_POLL_S = 0.2
_UNREACHABLE_PAUSE_S = 1.0


class Registration:
    """One registered process. Lives on one event loop.

    Args:
        store: not closed by the registration.
        key: `Keys.member(id)` or `Keys.router(id)`.
        record: its `instance` has to be new for every process.
        ttl_s: of the lease; the record outlives the process by at most about this.
        takeover_wait_s: how long `start` waits for the record of an earlier process to go.
        known_key: a key without a lease that is written together with each new record, and removed by `stop`: it says
            that the process may be there even when its lease has ended. Empty: none.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        record: MemberRecord | RouterRecord,
        *,
        ttl_s: int = LEASE_TTL_S,
        takeover_wait_s: float = LEASE_TTL_S + 2.0,
        known_key: str = "",
    ) -> None:
        self._store, self._key, self._record = store, key, record
        self._ttl_s, self._takeover_wait_s = ttl_s, takeover_wait_s
        self._known_key = known_key
        self._lease = NO_LEASE
        self._version = ABSENT
        self._writing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._registrations = 0

    @property
    def record(self) -> MemberRecord | RouterRecord:
        """What is, or will be, in the store."""
        return self._record

    @property
    def lease(self) -> int:
        """The lease that the record lives under; `NO_LEASE` while there is none."""
        return self._lease

    @property
    def registrations(self) -> int:
        """How often the record was put anew: 1 after `start`, more after leases were lost."""
        return self._registrations

    async def start(self) -> None:
        """Register, and keep registered until `stop`.

        Raises:
            FailedPreconditionError: another process holds the id, still after `takeover_wait_s`; names its address.
            UnavailableError, DeadlineExceededError: the store does not answer. Nothing runs then; call again.
        """
        assert self._keeper is None
        self._lease = NO_LEASE
        deadline_s = asyncio.get_running_loop().time() + self._takeover_wait_s
        while True:
            try:
                async with self._writing:
                    await self._register()
                break
            except FailedPreconditionError:
                if asyncio.get_running_loop().time() >= deadline_s:
                    await self._drop_lease()
                    raise
                await asyncio.sleep(_POLL_S)
        self._keeper = asyncio.create_task(self._keep(), name="placement.membership")

    async def start_when_reachable(self) -> None:
        """As `start`, but wait, as long as it takes, for a store that does not answer.

        Raises:
            FailedPreconditionError: as `start`.
        """
        while True:
            try:
                return await self.start()
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("%s: not registered yet: %s", self._key, error.message)
                await asyncio.sleep(_UNREACHABLE_PAUSE_S)

    async def update(self, record: MemberRecord | RouterRecord) -> None:
        """Replace the record; returns when it is written, or when the store did not take it now (it is written later).

        REQUIRED: the same `instance`.
        """
        assert record.instance == self._record.instance
        self._record = record
        if self._keeper is not None:
            await self._refresh(keep=False)

    async def stop(self) -> None:
        """Remove the record; without an answer of the store it goes with its lease. May be called twice."""
        if self._keeper is not None:
            await end(self._keeper)
            self._keeper = None
            if self._known_key and self._lease != NO_LEASE:
                try:
                    await self._store.delete(self._known_key)
                except TesseraError as error:
                    _log.warning("%s: could not be removed: %s", self._known_key, error.message)
        await self._drop_lease()

    async def report_ready(self, keys: Keys, placement: Placement, operation_version: int, held_bytes: int) -> bool:
        """Say that this server holds, verified, all that `placement` gives it.

        Args:
            keys: of the cluster.
            placement: the target that was staged.
            operation_version: `ModelView.operation_version` when `placement` was its target.
            held_bytes: how many bytes that is.

        Returns:
            False if the operation has moved on (look at the newest snapshot) or the lease was just lost (call again).

        Raises:
            UnavailableError, DeadlineExceededError: the store does not answer; call again.
        """
        if self._lease == NO_LEASE:
            return False
        server = self._key.rpartition("/")[2]
        value = ReadyRecord(self._record.instance, placement.digest, held_bytes).to_bytes()
        ready_key = keys.ready(placement.model, placement.epoch, server)
        entry = await self._store.get(ready_key)
        if entry is not None and (entry.value, entry.lease) == (value, self._lease):
            return True
        compares = [
            Compare(keys.operation(placement.model), version=operation_version),
            Compare(self._key, version=self._version),
        ]
        try:
            await self._store.transact(compares, [Put(ready_key, value, self._lease)])
        except (AbortedError, NotFoundError):
            return False
        return True

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            await self._refresh(keep=True)

    async def _refresh(self, *, keep: bool) -> None:
        """Bring the store to the desired state; errors are logged, the keeper comes again."""
        async with self._writing:
            try:
                if keep and self._lease != NO_LEASE:
                    try:
                        await self._store.keep_lease(self._lease)
                    except NotFoundError:
                        _log.warning("%s: the lease was lost; registering again", self._key)
                        self._lease = NO_LEASE
                await self._register()
            except FailedPreconditionError as error:
                _log.error("%s", error.message)
            except TesseraError as error:
                _log.warning("%s: keeping the registration failed, will try again: %s", self._key, error.message)

    async def _register(self) -> None:
        """Write the record if the store's is missing or differs.

        Raises:
            FailedPreconditionError: the key belongs to another instance.
        """
        value = self._record.to_bytes()
        entry = await self._store.get(self._key)
        if entry is not None and _instance(entry) != self._record.instance:
            raise FailedPreconditionError(
                f"{self._key}: duplicate id: held by instance {_instance(entry)} at {_field(entry, 'address')}, "
                f"this is instance {self._record.instance} at {self._record.address}"
            )
        if self._lease == NO_LEASE:
            self._lease = await self._store.grant_lease(self._ttl_s)
        if entry is not None and entry.value == value and entry.lease == self._lease:
            self._version = entry.version
            return
        try:
            puts = [Put(self._key, value, self._lease)]
            if self._known_key and entry is None:
                puts.append(Put(self._known_key, b"{}"))
            compare = Compare(self._key, version=entry.version if entry else ABSENT)
            self._version = await self._store.transact([compare], puts)
        except NotFoundError:
            self._lease = NO_LEASE
            raise
        except AbortedError as error:
            raise FailedPreconditionError(f"{self._key}: somebody else wrote it at the same moment") from error
        if entry is None:
            self._registrations += 1

    async def _drop_lease(self) -> None:
        lease, self._lease = self._lease, NO_LEASE
        if lease == NO_LEASE:
            return
        try:
            await self._store.revoke_lease(lease)
        except TesseraError as error:
            _log.warning("%s: could not be removed, it goes within %d s: %s", self._key, self._ttl_s, error.message)


def _field(entry: Entry, name: str) -> str:
    """Return a text field of a record that may be damaged or of another release; "?" if it is not there."""
    try:
        raw = json.loads(entry.value)
    except ValueError:
        return "?"
    return str(raw.get(name, "?")) if isinstance(raw, dict) else "?"


def _instance(entry: Entry) -> str:
    return _field(entry, "instance")
