"""A `Store` on etcd, over etcd's own gRPC API. The only module that knows etcd's messages.

Every unary call has a deadline. A call goes to one endpoint at a time, and to the next one when that does not
answer; reads are repeated there, writes are not, because they may have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

import grpc

from placement.etcd_channels import Channels, Tls
from placement.store import (
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
from protos import etcd_pb2 as pb
from tessera.errors import (
    AbortedError,
    Code,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    TesseraError,
    UnavailableError,
    error_class,
)

T = TypeVar("T")

TIMEOUT_S = 2.0
PROGRESS_INTERVAL_S = 10.0
SILENCE_S = 30.0
PAGE_ENTRIES = 500
MAX_LISTED_ENTRIES = 200_000
MAX_PENDING_EVENTS = 100_000

_RANGE = "/etcdserverpb.KV/Range"
_TXN = "/etcdserverpb.KV/Txn"
_WATCH = "/etcdserverpb.Watch/Watch"
_GRANT = "/etcdserverpb.Lease/LeaseGrant"
_KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
_REVOKE = "/etcdserverpb.Lease/LeaseRevoke"

# Without it a watch on a member that is cut off from the others stays silent for ever.
_NEEDS_LEADER = (("hasleader", "true"),)


class EtcdStore:
    """See `placement.store.Store`.

    Args:
        endpoints: host:port of any of etcd's members.
        ca: PEM of the CA that etcd's certificate is checked against; turns TLS on. Empty: plain text.
        cert: PEM of our own certificate, if etcd wants one; with `key`, its private key.
        key: see `cert`.
        timeout_s: deadline of every call but watches, all endpoints together for finding a connection.
        progress_interval_s: how long a watch may be silent before etcd is asked for a sign of life.
        silence_s: how long it may be silent before it is lost.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca: bytes = b"",
        cert: bytes = b"",
        key: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        progress_interval_s: float = PROGRESS_INTERVAL_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        if timeout_s <= 0 or not 0 < progress_interval_s <= silence_s:
            raise InvalidArgumentError(
                f"etcd: got timeout_s {timeout_s}, progress_interval_s {progress_interval_s}, silence_s {silence_s}, "
                "expected positive ones, the interval not above the silence"
            )
        self._channels = Channels(endpoints, Tls(ca, cert, key) if ca or cert or key else None)
        self._timeout_s = timeout_s
        self._progress_interval_s, self._silence_s = progress_interval_s, silence_s

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        check_key(key)
        response = await self._read(pb.RangeRequest(key=key.encode()), key)
        return _entry(response.kvs[0]) if response.kvs else None

    async def list_prefix(self, prefix: str) -> Listing:
        """See `Store.list_prefix`. Large listings come in pages of one revision."""
        check_key(prefix)
        start, end, revision = prefix.encode(), _range_end(prefix), 0
        entries: list[Entry] = []
        while True:
            request = pb.RangeRequest(key=start, range_end=end, limit=PAGE_ENTRIES, revision=revision)
            response = await self._read(request, prefix)
            revision = revision or response.header.revision
            entries += [_entry(kv) for kv in response.kvs]
            if not response.more:
                return Listing(tuple(entries), revision)
            if len(entries) >= MAX_LISTED_ENTRIES:
                raise ResourceExhaustedError(f"{prefix}: more than {MAX_LISTED_ENTRIES} keys")
            start = response.kvs[-1].key + b"\0"

    async def put(self, key: str, value: bytes, *, expected: int | None = None, lease: int = NO_LEASE) -> int:
        """See `Store.put`."""
        compares = [] if expected is None else [Compare(key, version=expected)]
        return await self.transact(compares, [Put(key, value, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `Store.delete`."""
        compares = [] if expected is None else [Compare(key, version=expected)]
        response = await self._transact(compares, [Delete(key)])
        return bool(response.responses[0].response_delete_range.deleted)

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        """See `Store.transact`."""
        response = await self._transact(compares, operations)
        return int(response.header.revision)

    async def grant_lease(self, ttl_s: int) -> int:
        """See `Store.grant_lease`."""
        if ttl_s < 1:
            raise InvalidArgumentError(f"ttl_s: got {ttl_s}, expected at least 1")
        response = await self._unary(
            _GRANT, pb.LeaseGrantRequest(TTL=ttl_s), pb.LeaseGrantResponse.FromString, "lease", is_write=True
        )
        if response.error:
            raise UnavailableError(f"etcd: lease of {ttl_s} s: {response.error}")
        return int(response.ID)

    async def keep_lease(self, lease: int) -> float:
        """See `Store.keep_lease`. One short stream per call: a stream that lives on would need watching over itself."""
        channel = await self._channels.ready(self._timeout_s)
        endpoint = self._channels.endpoint
        method = channel.stream_stream(
            _KEEP_ALIVE, pb.LeaseKeepAliveRequest.SerializeToString, pb.LeaseKeepAliveResponse.FromString
        )
        call = method(timeout=self._timeout_s, metadata=_NEEDS_LEADER)
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            await call.done_writing()
            response: Any = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self._channels.leave(endpoint)
            raise _convert_error(error, endpoint, f"lease {lease}", is_write=False) from error
        finally:
            call.cancel()
        if response is grpc.aio.EOF:
            raise UnavailableError(f"etcd {endpoint}: lease {lease}: the stream ended without an answer")
        if response.TTL <= 0:
            raise NotFoundError(f"lease {lease} has ended")
        return float(response.TTL)

    async def revoke_lease(self, lease: int) -> None:
        """See `Store.revoke_lease`."""
        with contextlib.suppress(NotFoundError):
            await self._unary(
                _REVOKE,
                pb.LeaseRevokeRequest(ID=lease),
                pb.LeaseRevokeResponse.FromString,
                f"lease {lease}",
                is_write=True,
            )

    async def close(self) -> None:
        """See `Store.close`."""
        await self._channels.close()

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        check_key(prefix)
        channel = await self._channels.ready(self._timeout_s)
        endpoint = self._channels.endpoint
        create = pb.WatchCreateRequest(
            key=prefix.encode(), range_end=_range_end(prefix), start_revision=after_revision + 1, fragment=True
        )
        method = channel.stream_stream(_WATCH, pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)
        call = method(metadata=_NEEDS_LEADER)
        pending: list[Event] = []
        try:
            await call.write(pb.WatchRequest(create_request=create))
            while True:
                response = await self._next_response(call, prefix)
                _check_watch(response, prefix)
                pending += [_event(event) for event in response.events]
                if len(pending) > MAX_PENDING_EVENTS:
                    raise WatchLostError("overflow", f"{prefix}: more than {MAX_PENDING_EVENTS} events at one revision")
                if response.fragment:
                    continue
                yield Batch(tuple(pending), pending[-1].version if pending else 0)
                pending = []
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self._channels.leave(endpoint)
            converted = _convert_error(error, endpoint, prefix, is_write=False)
            if isinstance(converted, UnavailableError | DeadlineExceededError):
                raise WatchLostError("ended", converted.message) from error
            raise converted from error
        except WatchLostError as error:
            if error.reason != "compacted":
                self._channels.leave(endpoint)
            raise
        finally:
            call.cancel()

    async def _next_response(self, call: Any, prefix: str) -> pb.WatchResponse:
        """Return the next message of a watch; ask for a sign of life while there is none.

        Raises:
            WatchLostError: the stream ended, or nothing came within the time allowed.
        """
        reading = asyncio.ensure_future(call.read())
        silent_s = 0.0
        try:
            while True:
                wait_s = min(self._progress_interval_s, self._silence_s - silent_s)
                done, _ = await asyncio.wait({reading}, timeout=wait_s)
                if done:
                    response = reading.result()
                    if response is grpc.aio.EOF:
                        raise WatchLostError("ended", f"{prefix}: etcd ended the stream")
                    return response  # type: ignore[no-any-return]
                silent_s += wait_s
                if silent_s >= self._silence_s:
                    raise WatchLostError("silent", f"{prefix}: nothing was heard for {self._silence_s:g} s")
                # A write may block when the peer has stopped reading; the silence must be noticed all the same.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timeout_s):
                        await call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        finally:
            reading.cancel()

    async def _transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> pb.TxnResponse:
        check_transaction(compares, operations)
        request = pb.TxnRequest(
            compare=[_compare(compare) for compare in compares], success=[_request_op(op) for op in operations]
        )
        keys = ", ".join(operation.key for operation in operations)
        response: pb.TxnResponse = await self._unary(_TXN, request, pb.TxnResponse.FromString, keys, is_write=True)
        if not response.succeeded:
            expected = ", ".join(f"{compare.key} {compare.wanted}" for compare in compares)
            raise AbortedError(f"{keys}: not written: somebody else was first; expected {expected}")
        return response

    async def _read(self, request: pb.RangeRequest, what: str) -> pb.RangeResponse:
        """Read, on each endpoint once if need be."""
        for _ in self._channels.endpoints[1:]:
            with contextlib.suppress(UnavailableError, DeadlineExceededError):
                return await self._unary(_RANGE, request, pb.RangeResponse.FromString, what, is_write=False)
        return await self._unary(_RANGE, request, pb.RangeResponse.FromString, what, is_write=False)

    async def _unary(
        self, path: str, request: Any, deserialize: Callable[[bytes], T], what: str, *, is_write: bool
    ) -> T:
        channel = await self._channels.ready(self._timeout_s)
        endpoint = self._channels.endpoint
        method: Any = channel.unary_unary(path, lambda message: message.SerializeToString(), deserialize)
        try:
            response: T = await method(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            converted = _convert_error(error, endpoint, what, is_write=is_write)
            if isinstance(converted, UnavailableError | DeadlineExceededError):
                self._channels.leave(endpoint)
            raise converted from error
        return response


def _convert_error(error: Exception, endpoint: str, what: str, *, is_write: bool) -> TesseraError:
    """Return what an error of a call means to users of the store."""
    unknown = "; outcome unknown: read before repeating" if is_write else ""
    if not isinstance(error, grpc.aio.AioRpcError):
        return UnavailableError(f"etcd {endpoint}: {what}: the stream was closed{unknown}")
    code, details = Code(error.code().value[0]), error.details() or error.code().name
    if code in (Code.UNKNOWN, Code.CANCELLED, Code.INTERNAL, Code.ABORTED):
        # etcd answers UNKNOWN when it has no quorum.
        code = Code.UNAVAILABLE
    if code is Code.FAILED_PRECONDITION:
        code = Code.UNAVAILABLE if "raft" in details or "leader" in details else code
    if code is Code.OUT_OF_RANGE:
        return WatchLostError("compacted", f"{what}: {details}")
    if code is Code.UNAVAILABLE or code is Code.DEADLINE_EXCEEDED:
        details += unknown
    return error_class(code)(f"etcd {endpoint}: {what}: {details}")


def _check_watch(response: pb.WatchResponse, prefix: str) -> None:
    """Raise what a message of a watch says went wrong."""
    if response.compact_revision:
        raise WatchLostError("compacted", f"{prefix}: that revision is gone, the oldest is {response.compact_revision}")
    if response.canceled:
        reason = response.cancel_reason or "no reason given"
        if "permission denied" in reason or "auth" in reason:
            raise error_class(Code.PERMISSION_DENIED)(f"etcd: watch of {prefix}: {reason}")
        raise WatchLostError("cancelled", f"{prefix}: {reason}")


def _range_end(prefix: str) -> bytes:
    """Return the first key after all that begin with `prefix`; its last byte can grow, as UTF-8 has no byte 255."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _key(kv: pb.KeyValue) -> str:
    """Return the key as text; one that is not UTF-8 is not ours, and must not stop those who list what is."""
    return kv.key.decode(errors="surrogateescape")


def _entry(kv: pb.KeyValue) -> Entry:
    return Entry(_key(kv), kv.value, kv.mod_revision, kv.create_revision, kv.lease)


def _event(event: pb.Event) -> Event:
    key = _key(event.kv)
    if event.type == pb.Event.DELETE:
        return Event(key, None, event.kv.mod_revision)
    return Event(key, _entry(event.kv), event.kv.mod_revision)


def _compare(compare: Compare) -> pb.Compare:
    key = compare.key.encode()
    if compare.none_created_after is not None:
        return pb.Compare(
            key=key,
            range_end=_range_end(compare.key),
            target=pb.Compare.CREATE,
            result=pb.Compare.LESS,
            create_revision=compare.none_created_after + 1,
        )
    if compare.created is not None:
        return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=compare.created)
    if compare.version is None:
        raise InternalError(f"compare of {compare.key}: neither version nor created")
    return pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=compare.version)


def _request_op(operation: Put | Delete) -> pb.RequestOp:
    key = operation.key.encode()
    if isinstance(operation, Put):
        return pb.RequestOp(request_put=pb.PutRequest(key=key, value=operation.value, lease=operation.lease))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
