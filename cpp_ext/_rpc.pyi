"""gRPC without Python: the server, the fan-out client and the table store.

Everything here releases the GIL while it waits, may be called from any thread, and raises `tessera.errors`.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

__version__: str

Capsule = Any

def slot_of(table: str, bucket: int, slots: int) -> int:
    """Return the slot of a bucket: xxh64 (seed 0) of `table` in UTF-8, a zero byte, and `bucket` as 8 bytes little-endian, mod `slots`."""

class Blob:
    """A read-only mapping of a blob file, unmapped when the last user (Python or native) is gone."""

    @staticmethod
    def map(path: str, size_bytes: int, *, populate: bool = False) -> Blob:
        """Map `path`; `populate` reads it into memory now.

        Raises:
            NotFoundError: no such file.
            DataLossError: the file has not exactly `size_bytes`.
            ResourceExhaustedError: the address space or memory limit does not allow it.
        """
    @property
    def path(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...

class HeldTable:
    """The buckets of one table that this server holds."""

    def __init__(self, *, name: str, rows: int, row_bytes: int, buckets: int, blobs: Mapping[int, Blob]) -> None:
        """Check that each blob has the bytes of its bucket.

        Raises:
            InvalidArgumentError: a number is out of range; names it.
            DataLossError: a blob has another size than its bucket; names table and bucket.
        """

class TableStore:
    """The tables that this process can be asked for, by package; readers never wait."""

    def __init__(self) -> None: ...
    def publish(self, *, package_digest: bytes, model: str, version: int, tables: Sequence[HeldTable]) -> None:
        """Serve a package's tables (in the order of its manifest) from the next request on, instead of what was published under the same digest (32 bytes)."""
    def retire(self, package_digest: bytes) -> bool:
        """Stop serving a package; return whether it was there. Requests that run keep their mappings."""
    def set_placement(self, *, model: str, epoch: int, document: bytes) -> None:
        """Keep the newest placement of a model, to be sent along when a request of another epoch asks for what is not here."""
    def set_draining(self, draining: bool) -> None:
        """Refuse new lookups with DRAINING, so that routers go to a replica, or accept them again."""
    def stats(self) -> dict[str, int]:
        """Return counters since start: requests, rows, bytes, refused_not_owner, refused_draining, refused_bad_request."""

class Health:
    """`grpc.health.v1.Health`, answered without Python: Check, and Watch, which is sent each change."""

    def __init__(self) -> None: ...
    def set(self, service: str, status: int) -> None:
        """Set the status of a service, known from now on: 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING; "" is the whole server. Without effect after `drain`.

        Raises:
            InvalidArgumentError: another status; names the service.
        """
    def drain(self) -> None:
        """Turn every service to NOT_SERVING for good."""

class Server:
    """A gRPC server whose pollers also drive the fan-out's calls."""

    def __init__(
        self,
        *,
        address: str = "",
        addresses: Sequence[str] = (),
        plain_addresses: Sequence[str] = (),
        pollers: int = 0,
        max_message_bytes: int = ...,
        max_concurrent_calls: int = 4096,
        default_deadline_s: float = 30.0,
        busy_poll_s: float = 0.0,
        channel_arguments: Mapping[str, int | str] = ...,
        tls_certificate: bytes = b"",
        tls_private_key: bytes = b"",
        tls_client_ca: bytes = b"",
    ) -> None:
        """Listen on `address` and `addresses`, with TLS when there is a certificate, and on `plain_addresses` without.

        Each is host:port (port 0: any free one; [::]:8500 for IPv6 and IPv4) or unix:path; `pollers` 0 means one per core.
        Calls above `max_concurrent_calls` are refused with RESOURCE_EXHAUSTED; a call without a deadline gets `default_deadline_s`.
        While the fan-out of a poller awaits answers, it looks for them for `busy_poll_s` before it sleeps.
        `channel_arguments` are gRPC's own ("grpc.keepalive_time_ms": 10000) and win over the settings here.
        The certificate, key and CA are PEM texts; a client CA demands certificates of callers. `set_certificates` replaces them.
        """
    def serve_tables(self, store: TableStore) -> None:
        """Answer `/tessera.data.v1.TableService/Lookup` from `store`. REQUIRED: before `start`."""
    def serve_native(self, method: str, handler: Capsule) -> None:
        """Answer the full method name `/package.Service/Method` by a `TESSERA_HANDLER_CAPSULE`. REQUIRED: before `start`."""
    def serve_python(self, method: str, handler: Callable[[bytes], bytes], *, own_thread: bool = False) -> None:
        """Answer a rare method by Python; a raised TesseraError gives its code. REQUIRED: before `start`.

        All such methods share one thread and a bounded queue; one that may take long gets `own_thread`, so that the others do not wait for it.
        """
    def serve_python_stream(self, method: str, handler: Callable[[bytes], bytes]) -> None:
        """Answer each message of a stream of both directions by one message; a raised TesseraError ends the stream. REQUIRED: before `start`.

        On the shared thread of `serve_python`; at most 128 streams at once and 64 KiB a message, RESOURCE_EXHAUSTED above.
        """
    def serve_health(self, health: Health) -> None:
        """Answer `grpc.health.v1.Health` (at most 1024 streams of Watch). `drain` drains it too. REQUIRED: before `start`."""
    def start(self) -> int:
        """Bind and serve; return the port of the first address (0 for a Unix socket).

        The file of a Unix socket that a dead process left is replaced.

        Raises:
            UnavailableError: an address cannot be bound, or another process listens on the Unix socket; names it.
            InvalidArgumentError: an address, a PEM text or an option is wrong; names it.
        """
    def set_certificates(self, *, tls_certificate: bytes, tls_private_key: bytes, tls_client_ca: bytes = b"") -> None:
        """Show these to callers that connect from now on; connections that are there go on. On any thread.

        Raises:
            InvalidArgumentError: a PEM text is wrong, or the key is another certificate's; names it. Nothing has changed.
            FailedPreconditionError: before `start`, or TLS, or the demand for certificates of callers, would begin or end.
        """
    @property
    def ports(self) -> list[int]:
        """The port of each address, in the order `address`, `addresses`, `plain_addresses`; 0 for a Unix socket; empty before `start`."""
    def drain(self, timeout_s: float) -> bool:
        """Turn health to NOT_SERVING, refuse new calls, end streams, wait for calls in flight at most `timeout_s`, cancel the rest; return whether all ended by themselves."""
    def stop(self, timeout_s: float = 30.0) -> None:
        """Cancel what runs, join every thread. May be called twice; also called by `__del__`.

        Raises:
            DeadlineExceededError: handlers have not ended their calls after `timeout_s`; names the methods. Their threads go on; `stop` may be called again.
        """
    def stats(self) -> dict[str, int]:
        """Return: calls_started, calls_finished, calls_in_flight, calls_failed, calls_refused. Streams count as started and finished, not as in flight."""

class Target:
    """One server that a route may ask."""

    def __init__(self, *, server_id: str, address: str = "", store: TableStore | None = None) -> None:
        """Reached at `address` over gRPC, or, for the same process and without sockets, through `store`. An empty address without a store is a server whose address is not known: it counts as unreachable."""

class RoutedTable:
    """What the fan-out must know of a table."""

    def __init__(self, *, name: str, rows: int, row_bytes: int, buckets: int) -> None: ...

class Route:
    """Where the tables of one package live in one epoch. Immutable."""

    def capsule(self) -> Capsule:
        """Return a `TESSERA_ROUTE_CAPSULE` that keeps the route alive."""
    def trace(self) -> dict[str, Any]:
        """Return `lookups`, the first 1,000 over a route made with `trace`, and `dropped`, the sub-requests that were not kept (over 10,000).

        A lookup has rows (distinct ones), repeats (ids that asked for a row again), started_ns, ended_ns (of
        CLOCK_MONOTONIC; 0: it runs), code, message and `sub_requests`: what was asked of one server, with server_id,
        address, cause ("first", "retry", "hedge"), table_rows (table → rows), ids_bytes, rows_bytes, and times and code likewise.
        """

class Fanout:
    """The client of the shard servers: channels, retries, statistics."""

    def __init__(
        self,
        server: Server | None = None,
        *,
        retry_delay_s: float = 0.05,
        retry_budget_tokens: int = 1024,
        max_message_bytes: int = ...,
        max_in_flight_lookups_per_server: int = 2,
        pollers: int = 1,
        tls_root_ca_file: str = "",
        tls_certificate_file: str = "",
        tls_private_key_file: str = "",
        tls_poll_s: float = 0.0,
    ) -> None:
        """Use the pollers of `server`, or `pollers` threads of its own. A sub-request without an answer after `retry_delay_s` is sent to a replica too; the first answer wins.

        While `max_in_flight_lookups_per_server` RPCs of a route are in flight to a server, further sub-requests wait and share the next RPC; 0: nothing waits, nothing is merged.
        What does not fit into `max_message_bytes` goes in several RPCs. The PEM files are looked at again every `tls_poll_s` seconds (whole ones, 0: never); connections that are made later use what they hold then.
        """
    def route(
        self,
        *,
        model: str,
        version: int,
        epoch: int,
        package_digest: bytes,
        targets: Sequence[Target],
        slots: Sequence[Sequence[int]],
        tables: Sequence[RoutedTable],
        trace: bool = False,
    ) -> Route:
        """Build a route: `slots[s]` are positions in `targets`, best first. Channels to equal addresses are shared with earlier routes.

        With `trace` the route keeps what lookups over it do, for `Route.trace`: not for routes that serve clients.
        """
    def capsule(self) -> Capsule:
        """Return the `TESSERA_FANOUT_CAPSULE` of this process (one table for every Fanout)."""
    def stats(self) -> dict[str, Any]:
        """Return: lookups, subrequests (what lookups asked of one server each), rpcs (that carried them; subrequests / rpcs is the mean number of members), merged (sub-requests that shared an RPC), retries, hedges, failures, newest_epochs, oldest_epochs (model → oldest epoch of a living route; requests keep theirs alive), ejections (servers found to do much worse than the others), and `servers`: id → {subrequests, rpcs, failures, in_flight, suspect, ejected, avoided, ejections}."""
    def newest_placements(self) -> dict[str, bytes]:
        """Return model → the newest placement document that a refusal carried, of those newer than the refused request's epoch."""
    @property
    def placements_told(self) -> int:
        """How often what `newest_placements` returns has changed."""
    def avoid(self, server_ids: Set[str]) -> None:
        """From now on ask these servers only for rows that no other server that is well holds."""
    def stop(self) -> None:
        """Cancel what runs and join own threads. REQUIRED: before the server's `stop`."""
