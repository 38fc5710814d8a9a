"""The cluster as one immutable value, and the pure reducer that makes the next one from changes.

What the reducer refuses it names in `problems`: a model goes on with the last placement that was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from placement.keys import Keys, Kind, Parsed
from placement.records import (
    CurrentRecord,
    MemberRecord,
    OperationRecord,
    OperationState,
    Placement,
    ReadyRecord,
    RouterRecord,
    ServerRecord,
)
from placement.store import Entry, Event, Listing
from tessera.errors import DataLossError

T = TypeVar("T")
_STAGING = (OperationState.PREPARING, OperationState.PREPARED)
_BASED = (*_STAGING, OperationState.COMMITTED)


def _empty() -> Mapping[str, T]:
    return MappingProxyType({})


@dataclass(frozen=True)
class MemberView:
    """A server as last heard of; `live` is a hint (its lease exists), `record.address` is worth trying either way."""

    record: MemberRecord
    live: bool


@dataclass(frozen=True)
class ModelView:
    """One model.

    Attributes:
        current: the pointer that is applied, and `placement` its document; None before the first one, and the document
        of a model that was unloaded.
        operation: the change that is under way or was last, or None; `operation_version` its version in the store
        (0: none).
        target: the placement to be staged beside the current one: the operation's, while it is PREPARING or PREPARED.
        base: the placement that the operation starts from, until it is DRAINED: requests may still use it. Before the
        commit it is the current one.
        ready: (epoch, server) → what the server reported.
    """

    current: CurrentRecord | None = None
    placement: Placement | None = None
    operation: OperationRecord | None = None
    operation_version: int = 0
    target: Placement | None = None
    base: Placement | None = None
    ready: Mapping[tuple[int, str], ReadyRecord] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def epoch(self) -> int:
        """The newest epoch that is applied, also of an unload; 0 before the first."""
        return self.placement.epoch if self.placement else self.current.epoch if self.current else 0

    @property
    def held(self) -> tuple[Placement, ...]:
        """The placements whose union servers hold: what requests may use or are about to use, each once."""
        placements = {p.epoch: p for p in (self.base, self.placement) if p is not None}
        return (*placements.values(), *self.staged)

    @property
    def staged(self) -> tuple[Placement, ...]:
        """The target, if it is not current yet."""
        current_epoch = self.placement.epoch if self.placement is not None else 0
        return (self.target,) if self.target is not None and self.target.epoch > current_epoch else ()


@dataclass(frozen=True)
class ClusterSnapshot:
    """Everything that is known of a cluster.

    Attributes:
        revision: of the store, when this was true; 0 when it did not come from the store.
        members: server id → last record; those without a lease stay while a placement names them.
        routers: router id → record, of those with a lease.
        servers: server id → what the operator wants.
        problems: key → what is wrong with it, for logs, metrics and `status`.
        entries: the raw state behind all this, by key.
    """

    revision: int = 0
    models: Mapping[str, ModelView] = field(default_factory=_empty)
    members: Mapping[str, MemberView] = field(default_factory=_empty)
    routers: Mapping[str, RouterRecord] = field(default_factory=_empty)
    servers: Mapping[str, ServerRecord] = field(default_factory=_empty)
    problems: Mapping[str, str] = field(default_factory=_empty)
    entries: Mapping[str, Entry] = field(default_factory=_empty, repr=False)

    def address_of(self, server: str) -> str:
        """Return the last known address of a server; empty if it was never heard of."""
        member = self.members.get(server)
        return member.record.address if member else ""


def replace_all(keys: Keys, snapshot: ClusterSnapshot, listing: Listing) -> ClusterSnapshot:
    """Return the snapshot after a full listing: the same as if the missed changes had come as events."""
    listed = {entry.key: entry for entry in listing.entries}
    events = [
        Event(entry.key, entry, entry.version) for entry in listing.entries if snapshot.entries.get(entry.key) != entry
    ]
    events += [Event(key, None, listing.revision) for key in snapshot.entries if key not in listed]
    return replace(apply(keys, snapshot, events), revision=listing.revision)


def apply(keys: Keys, snapshot: ClusterSnapshot, events: Iterable[Event]) -> ClusterSnapshot:
    """Return the snapshot after `events`.

    A model's placement changes only if (generation, epoch) grows and the document is there with the digest that the
    pointer states. The same epoch with another digest is a problem, never applied. A deleted pointer changes nothing.

    Cost: one copy of the dictionaries, plus decoding what changed.
    """
    entries, problems = dict(snapshot.entries), dict(snapshot.problems)
    changed: dict[str, Parsed] = {}
    revision = snapshot.revision
    for event in events:
        revision = max(revision, event.version)
        parsed = keys.parse(event.key)
        if parsed is None or parsed.kind in (Kind.AUDIT, Kind.LOCK, Kind.CONTROLLER, Kind.META):
            continue
        changed[event.key] = parsed
        problems.pop(event.key, None)
        if event.entry is None:
            entries.pop(event.key, None)
        else:
            entries[event.key] = event.entry

    members, routers, servers = dict(snapshot.members), dict(snapshot.routers), dict(snapshot.servers)
    for key, parsed in changed.items():
        entry = entries.get(key)
        if parsed.kind is Kind.MEMBER:
            _apply_member(members, parsed.id, entry, problems)
        elif parsed.kind is Kind.ROUTER:
            _apply_record(routers, parsed.id, entry, RouterRecord.from_bytes, problems)
        elif parsed.kind is Kind.SERVER:
            _apply_record(servers, parsed.id, entry, ServerRecord.from_bytes, problems)

    models = dict(snapshot.models)
    for model in sorted({parsed.model for parsed in changed.values() if parsed.model}):
        models[model] = _model_view(keys, model, models.get(model, ModelView()), entries, problems)
    named = {s for m in models.values() for p in m.held for s in p.servers}
    members = {server: member for server, member in members.items() if member.live or server in named}
    return ClusterSnapshot(
        revision,
        MappingProxyType(models),
        MappingProxyType(members),
        MappingProxyType(routers),
        MappingProxyType(servers),
        MappingProxyType(problems),
        MappingProxyType(entries),
    )


def _apply_member(members: dict[str, MemberView], server: str, entry: Entry | None, problems: dict[str, str]) -> None:
    """Take a member's new record; a lost one keeps its last record and is marked as not live."""
    if entry is None:
        if server in members:
            members[server] = replace(members[server], live=False)
        return
    record = _decode(entry, MemberRecord.from_bytes, problems)
    if record is not None:
        members[server] = MemberView(record, live=True)


def _apply_record(
    records: dict[str, T],
    name: str,
    entry: Entry | None,
    decode: Callable[[bytes, str], T],
    problems: dict[str, str],
) -> None:
    if entry is None:
        records.pop(name, None)
        return
    record = _decode(entry, decode, problems)
    if record is not None:
        records[name] = record


def _decode(entry: Entry, decode: Callable[[bytes, str], T], problems: dict[str, str]) -> T | None:
    try:
        return decode(entry.value, entry.key)
    except DataLossError as error:
        problems[entry.key] = error.message
        return None


def _model_view(
    keys: Keys, model: str, old: ModelView, entries: Mapping[str, Entry], problems: dict[str, str]
) -> ModelView:
    """Derive a model's view from the raw state; `old` is kept where the raw state is damaged, incomplete or older."""
    new = old
    current_key, operation_key = keys.current(model), keys.operation(model)
    if entry := entries.get(current_key):
        problems.pop(current_key, None)
        current = _decode(entry, CurrentRecord.from_bytes, problems)
        if current is not None and current != old.current and _may_follow(current_key, old.current, current, problems):
            placement = None if current.unloaded else _next_placement(keys, model, old, current, entries, problems)
            if placement is not None or current.unloaded:
                new = replace(new, current=current, placement=placement)

    operation, version = None, 0
    if entry := entries.get(operation_key):
        operation = _decode(entry, OperationRecord.from_bytes, problems)
        version = entry.version
    target = base = None
    if operation is not None and operation.state in _STAGING:
        target = _document(
            keys, model, operation.target_epoch, operation.target_digest, (old.target, new.placement), entries, problems
        )
    if operation is not None and operation.state in _BASED and operation.base_digest:
        known = (old.base, old.placement, new.placement)
        base = _document(keys, model, operation.base_epoch, operation.base_digest, known, entries, problems)
    ready = {}
    prefix = f"{keys.model(model)}ready/"
    for key, entry in entries.items():
        parsed = keys.parse(key) if key.startswith(prefix) else None
        record = _decode(entry, ReadyRecord.from_bytes, problems) if parsed else None
        if parsed and record:
            ready[parsed.epoch, parsed.id] = record
    return replace(
        new, operation=operation, operation_version=version, target=target, base=base, ready=MappingProxyType(ready)
    )


def _may_follow(key: str, old: CurrentRecord | None, new: CurrentRecord, problems: dict[str, str]) -> bool:
    """Return whether a pointer may replace the `old` one; the reason why not is in `problems`."""
    if old is None:
        return True
    had, given = (old.generation, old.epoch), (new.generation, new.epoch)
    if given < had:
        problems[key] = f"{key}: (generation, epoch) went back from {had} to {given}; ignored"
    elif given == had and new.digest != old.digest:
        problems[key] = (
            f"{key}: (generation, epoch) {given} has digest {new.digest}, "
            f"but {old.digest} is applied under the same numbers; ignored"
        )
    return given > had or (given == had and new.digest == old.digest)


def _next_placement(
    keys: Keys,
    model: str,
    old: ModelView,
    current: CurrentRecord,
    entries: Mapping[str, Entry],
    problems: dict[str, str],
) -> Placement | None:
    """Return the document of `current`, or None with the reason in `problems`."""
    known = (old.placement, old.target)
    return _document(keys, model, current.epoch, current.digest, known, entries, problems)


def _document(
    keys: Keys,
    model: str,
    epoch: int,
    digest: str,
    known: Iterable[Placement | None],
    entries: Mapping[str, Entry],
    problems: dict[str, str],
) -> Placement | None:
    """Return the document of an epoch if it has the digest; from `known` without decoding if it is there."""
    for placement in known:
        if placement is not None and (placement.epoch, placement.digest) == (epoch, digest):
            return placement
    key = keys.placement(model, epoch)
    entry = entries.get(key)
    if entry is None:
        problems[key] = f"{key}: the document is missing, expected one with digest {digest}"
        return None
    problems.pop(key, None)
    decoded = _decode(entry, Placement.from_bytes, problems)
    if decoded is None:
        return None
    if (decoded.model, decoded.epoch, decoded.digest) != (model, epoch, digest):
        problems[key] = (
            f"{key}: holds model {decoded.model}, epoch {decoded.epoch}, digest {decoded.digest}, "
            f"expected digest {digest}"
        )
        return None
    return decoded
