"""The contract of the store: a small, versioned, watched key-value map with leases. Two implementations keep it.

`placement.etcd_store.EtcdStore` is what production runs; `placement.memory_store.MemoryStore` serves one process.
`tests/support/store_contract.py` is the executable form of this page and runs on both.

Rules for all methods:

* A store belongs to one event loop; every method is called there.
* Keys are text, values are bytes. A prefix is compared as text: `a/` covers `a/b` and not `a`.
* Every successful write of the store raises one counter, the revision. All writes of one `transact` have the same
  revision. Revisions are positive, never repeat, and do not start at a known number.
* `version` of a key is the revision of its last write. It is what `expected` and `Compare` take, whether it came
  from `get`, `list_prefix`, the result of a write, or a watch event. A key that was deleted and written again has a
  new version.
* Errors are `tessera.errors` only:
  `AbortedError`: a comparison did not hold, nothing was written. Read again, decide again.
  `UnavailableError`, `DeadlineExceededError`: the store did not answer. A read may be repeated. A write may or may
  not have happened (the message says "outcome unknown" when that is so): read and compare before repeating it.
  `InvalidArgumentError`: the call is wrong: empty key, value over `MAX_VALUE_BYTES`, over `MAX_OPERATIONS`, the same
  key written twice.
  `NotFoundError`: the lease that was named is gone.
  `PermissionDeniedError`, `UnauthenticatedError`, `ResourceExhaustedError`: as they say.
* Every call ends: each has a deadline inside the store. Cancelling the calling task is always allowed, and leaves a
  write with an unknown outcome.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tessera.errors import InvalidArgumentError, UnavailableError

ABSENT = 0
"""As `expected` or `Compare.version`: the key does not exist."""

NO_LEASE = 0
MAX_OPERATIONS = 128
MAX_VALUE_BYTES = 1_500_000
MAX_KEY_BYTES = 1024


class WatchLostError(UnavailableError):
    """A watch ended and will not go on: list again, then watch from there.

    Attributes:
        reason: one word for metrics: compacted, cancelled, silent, ended, overflow.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"watch lost ({reason}): {message}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it is in the store.

    Attributes:
        version: revision of its last write.
        created: revision of the write that made it; stays while the key lives. A fencing token.
        lease: the lease that it lives under; `NO_LEASE` when none.
    """

    key: str
    value: bytes
    version: int
    created: int
    lease: int = NO_LEASE


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries under a prefix, in the order of their keys, as they were together at `revision`."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `entry` is None for a deletion (also by a lease that ended); `version` is the change's revision."""

    key: str
    entry: Entry | None
    version: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in the order of their revisions, up to and including `revision`.

    A batch without events only says that the store was heard of; its `revision` is 0 and means nothing.
    """

    events: tuple[Event, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds if the key has exactly this `version`, or exactly this `created` revision. Exactly one field is given.

    With `none_created_after`, `key` is a prefix: holds if every key under it that is there now was created at that
    revision or before. One that has gone since is not noticed.
    """

    key: str
    version: int | None = None
    created: int | None = None
    none_created_after: int | None = None

    def __post_init__(self) -> None:
        if [self.version, self.created, self.none_created_after].count(None) != 2:
            raise InvalidArgumentError(f"compare of {self.key}: got {self}, expected exactly one field besides the key")

    @property
    def wanted(self) -> str:
        """What it demands, for messages."""
        if self.none_created_after is not None:
            return f"nothing created after {self.none_created_after}"
        return f"version {self.version}" if self.created is None else f"created at {self.created}"


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value`, under `lease` or under none (whatever the key lived under before)."""

    key: str
    value: bytes
    lease: int = NO_LEASE


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key if it is there."""

    key: str


class Store(Protocol):
    """See the module's text for what holds of every method."""

    async def get(self, key: str) -> Entry | None:
        """Return the key's entry, or None. Linearizable: sees every write that ended before the call."""

    async def list_prefix(self, prefix: str) -> Listing:
        """Return everything under `prefix` at one revision. Linearizable.

        `watch(prefix, listing.revision)` goes on exactly where the listing ends.
        """

    async def put(self, key: str, value: bytes, *, expected: int | None = None, lease: int = NO_LEASE) -> int:
        """Write a key; return its new version.

        Args:
            key: 1 to `MAX_KEY_BYTES` bytes.
            value: at most `MAX_VALUE_BYTES`.
            expected: the version that the key must have, `ABSENT` if it must not exist, None for any.
            lease: what the key lives under from now on; `NO_LEASE` for ever.

        Raises:
            AbortedError: the key has another version.
            NotFoundError: no such lease.
        """

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove a key; return whether it was there.

        Raises:
            AbortedError: `expected` is given and the key has another version.
        """

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        """Do all operations at one revision if all comparisons hold; return that revision (of the new versions).

        Args:
            compares: at most `MAX_OPERATIONS`.
            operations: at most `MAX_OPERATIONS`, no key twice.

        Raises:
            AbortedError: a comparison did not hold; nothing was written.
            NotFoundError: a put names a lease that is gone; nothing was written.
        """

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """Yield the changes under `prefix` whose revision is greater than `after_revision`, for ever.

        Promised: events come in the order of their revisions; a watch that goes on has no gap; a store that is not
        heard of for 30 s ends the watch. Not promised: a change may come again; a put may be skipped if the key was
        written again since; there may be any number of empty batches. Data only converges: what counts is the last
        state of each key.

        Close it (`aclose`, or leave `contextlib.aclosing`) when done.

        Raises:
            WatchLostError: compacted, cancelled by the store, silent or disconnected. List again.
            PermissionDeniedError: not allowed to watch.
        """

    async def grant_lease(self, ttl_s: int) -> int:
        """Return a new lease, which ends `ttl_s` ≥ 1 seconds from now unless kept; its keys are deleted with it.

        A lease is a hint: it may end early (a stalled store) or late (a restarted one). Never take more from it than
        "was heard of".
        """

    async def keep_lease(self, lease: int) -> float:
        """Let the lease live its full time again from now; return that time in seconds.

        Raises:
            NotFoundError: it has ended, and its keys are gone.
        """

    async def revoke_lease(self, lease: int) -> None:
        """End the lease now and delete its keys; does nothing if it has ended."""

    async def close(self) -> None:
        """Free connections and end watches. May be called twice."""


def check_transaction(compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> None:
    """Check the limits of `Store.transact`, the same for every store.

    Raises:
        InvalidArgumentError: too many comparisons or operations, a key written twice, an empty or long key, a large
        value.
    """
    for what, count in (("compares", len(compares)), ("operations", len(operations))):
        if count > MAX_OPERATIONS:
            raise InvalidArgumentError(f"{what}: got {count}, expected at most {MAX_OPERATIONS}")
    written: set[str] = set()
    for operation in operations:
        check_key(operation.key)
        if operation.key in written:
            raise InvalidArgumentError(f"operations: {operation.key}: written twice in one transaction")
        written.add(operation.key)
        if isinstance(operation, Put) and len(operation.value) > MAX_VALUE_BYTES:
            raise InvalidArgumentError(
                f"{operation.key}: got a value of {len(operation.value)} bytes, expected at most {MAX_VALUE_BYTES}"
            )


def check_key(key: str) -> None:
    """Check that a store can hold `key`.

    Raises:
        InvalidArgumentError: it is empty or longer than `MAX_KEY_BYTES`.
    """
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise InvalidArgumentError(f"key: got {key[:80]!r}, expected 1 to {MAX_KEY_BYTES} bytes")
