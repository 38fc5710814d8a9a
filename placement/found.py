"""What the store holds of one model, read for a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from placement.keys import Keys, Kind
from placement.plan import PlanServer
from placement.records import (
    FIRST_GENERATION,
    CurrentRecord,
    MemberRecord,
    MetaRecord,
    OperationRecord,
    Placement,
    ReadyRecord,
    RouterRecord,
    ServerRecord,
    ServerState,
    epochs_before,
)
from placement.store import ABSENT, MAX_OPERATIONS, Compare, Entry, Store

MAX_COMPARED = MAX_OPERATIONS - 8
"""Servers that a commit compares one by one; a few more comparisons are for lock, operation and pointer."""

_NAMED = 8


@dataclass(frozen=True)
class Found:
    """What the store holds of one model, and of the cluster.

    Attributes:
        generation: the cluster's; see `FIRST_GENERATION`.
        current_version: of the pointer's key; 0 if there is none.
        operation_version: of the operation's key; 0 if there is none.
        target, base: the documents of the operation's epochs, if they are there.
        last_epoch: the highest epoch that was ever written.
        ready: (epoch, server) → what the server reported.
        members: the live servers, and `created` the revision that made each one's record.
        members_revision: of the store, when the members were read.
        servers: what the operator wants of them.
        routers: the live routers.
        known_routers: ids of the routers that may send requests, heard of or not.
    """

    model: str
    generation: int = FIRST_GENERATION
    current: CurrentRecord | None = None
    current_version: int = ABSENT
    current_placement: Placement | None = None
    operation: OperationRecord | None = None
    operation_version: int = ABSENT
    target: Placement | None = None
    base: Placement | None = None
    last_epoch: int = 0
    ready: Mapping[tuple[int, str], tuple[Entry, ReadyRecord]] = field(default_factory=dict)
    members: Mapping[str, MemberRecord] = field(default_factory=dict)
    created: Mapping[str, int] = field(default_factory=dict)
    members_revision: int = 0
    servers: Mapping[str, ServerRecord] = field(default_factory=dict)
    routers: Mapping[str, RouterRecord] = field(default_factory=dict)
    known_routers: tuple[str, ...] = ()

    def ready_servers(self, target: Placement) -> tuple[tuple[Entry, ...], list[str]]:
        """Return the reports that count, and the servers of `target` that have none, with what they say of it.

        A report counts if it is for this very document and from the process that holds the server's id now.
        """
        ready: list[Entry] = []
        missing: list[str] = []
        for server in target.servers:
            member, report = self.members.get(server), self.ready.get((target.epoch, server))
            if (
                member is not None
                and report is not None
                and (report[1].instance, report[1].digest) == (member.instance, target.digest)
            ):
                ready.append(report[0])
            else:
                missing.append(with_reason(server, member))
        return tuple(ready), missing

    def still_there(self, keys: Keys, ready: Sequence[Entry], owners: Sequence[tuple[str, int]] = ()) -> list[Compare]:
        """Return the comparisons by which a commit fails when a server that it counts on has gone or is another now.

        Above `MAX_COMPARED` servers it is one comparison: nobody has registered since the members were read. A server
        that was restarted meanwhile, and may hold nothing yet, had to; one that died is as one that dies just after.

        Args:
            keys: of the cluster.
            ready: the reports that the commit rests on.
            owners: (server, revision that made its record) of those that it counts on without a report.
        """
        if len(ready) + len(owners) > MAX_COMPARED:
            return [Compare(keys.members, none_created_after=self.members_revision)]
        return [
            *(Compare(entry.key, created=entry.created) for entry in ready),
            *(Compare(keys.member(server), created=created) for server, created in owners),
        ]


def with_reason(server: str, member: MemberRecord | None) -> str:
    """Return the server's name with what it says of why it is not ready."""
    if member is None:
        return f"{server} (gone)"
    return f"{server} (cannot: {member.error})" if member.error else server


def not_ready(missing: Sequence[str], target: Placement) -> str:
    """Return what is waited for while `missing` servers of `target` have not reported."""
    count = len(target.servers)
    return f"{len(missing)} of {count} servers to hold their part of epoch {target.epoch}: {some(missing)}"


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


class Reader:
    """Reads `Found`; keeps the documents that it has decoded."""

    def __init__(self, store: Store, keys: Keys, model: str) -> None:
        self._store, self._keys, self._model = store, keys, model
        self._documents: dict[str, tuple[int, Placement]] = {}

    async def read(self) -> Found:
        """Read all that a decision rests on. Parts may be of different revisions: each write compares what it needs.

        Raises:
            UnavailableError, DeadlineExceededError: the store does not answer.
            DataLossError: a record is damaged; names it.
        """
        keys, model = self._keys, self._model
        entries = (await self._store.list_prefix(keys.model(model))).entries
        listed = await self._store.list_prefix(keys.members)
        members = listed.entries
        servers = (await self._store.list_prefix(keys.servers)).entries
        routers = (await self._store.list_prefix(keys.routers)).entries
        known = (await self._store.list_prefix(keys.known_routers)).entries
        meta = await self._store.get(keys.meta)
        by_key = {entry.key: entry for entry in entries}
        current = by_key.get(keys.current(model))
        operation = by_key.get(keys.operation(model))
        pointer = CurrentRecord.from_bytes(current.value, current.key) if current else None
        record = OperationRecord.from_bytes(operation.value, operation.key) if operation else None
        ready: dict[tuple[int, str], tuple[Entry, ReadyRecord]] = {}
        generation = MetaRecord.from_bytes(meta.value, meta.key).generation if meta else FIRST_GENERATION
        epochs = [epochs_before(generation), pointer.epoch if pointer else 0, record.target_epoch if record else 0]
        for entry in entries:
            parsed = keys.parse(entry.key)
            if parsed is not None and parsed.kind is Kind.PLACEMENT:
                epochs.append(parsed.epoch)
            elif parsed is not None and parsed.kind is Kind.READY:
                ready[parsed.epoch, parsed.id] = entry, ReadyRecord.from_bytes(entry.value, entry.key)
        return Found(
            model=model,
            generation=generation,
            current=pointer,
            current_version=current.version if current else ABSENT,
            current_placement=self._document(by_key, pointer.epoch) if pointer else None,
            operation=record,
            operation_version=operation.version if operation else ABSENT,
            target=self._document(by_key, record.target_epoch) if record else None,
            base=self._document(by_key, record.base_epoch) if record and record.base_epoch else None,
            last_epoch=max(epochs),
            ready=ready,
            members={name(e): MemberRecord.from_bytes(e.value, e.key) for e in members},
            created={name(e): e.created for e in members},
            members_revision=listed.revision,
            servers={name(e): ServerRecord.from_bytes(e.value, e.key) for e in servers},
            routers={name(e): RouterRecord.from_bytes(e.value, e.key) for e in routers},
            known_routers=tuple(name(e) for e in known),
        )

    def _document(self, by_key: Mapping[str, Entry], epoch: int) -> Placement | None:
        entry = by_key.get(self._keys.placement(self._model, epoch))
        if entry is None:
            return None
        known = self._documents.get(entry.key)
        if known is None or known[0] != entry.version:
            known = entry.version, Placement.from_bytes(entry.value, entry.key)
            self._documents[entry.key] = known
        return known[1]


def name(entry: Entry) -> str:
    """Return the last part of the entry's key: the id of a server or router."""
    return entry.key.rpartition("/")[2]


def plan_servers(members: Mapping[str, MemberRecord], servers: Mapping[str, ServerRecord]) -> list[PlanServer]:
    """Return the servers that may get slots (see `load_model`); what a member holds is taken off its capacity."""
    result = []
    for server, member in sorted(members.items()):
        wanted = servers.get(server)
        if wanted is not None and wanted.state is not ServerState.ACTIVE:
            continue
        capacity_bytes = wanted.capacity_bytes if wanted else member.capacity_bytes
        result.append(
            PlanServer(
                id=server,
                domain=wanted.domain if wanted else member.domain,
                weight=wanted.weight if wanted else 1,
                capacity_bytes=max(0, capacity_bytes - member.bytes_used),
            )
        )
    return result
