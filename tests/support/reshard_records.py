"""The records of an explored world, made once for each content: what the product's functions are given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from placement.document import Placement
from placement.found import Found
from placement.records import (
    CurrentRecord,
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    ReadyRecord,
    RouterRecord,
)
from placement.slots import slot_of
from placement.snapshot import ClusterSnapshot, ModelView, replace_all
from placement.store import Entry, Listing
from shard_server.desired import desired_packages, released
from support.fake_cluster import KEYS, MODEL

NEVER = 1 << 60
History = tuple[int, ...]
_TABLE = SimpleNamespace(name="t", buckets=8)
_MANIFEST: Any = SimpleNamespace(tables=(_TABLE,))


class Records:
    """`entries` are the contents (current epoch, operation) that the store may have; a history is numbers of them.

    Args:
        placements: epoch 1, then the targets of each operation.
    """

    def __init__(self, placements: tuple[Placement, ...]) -> None:
        self._placements = placements
        self.servers = tuple(sorted({server for placement in placements for server in placement.servers}))
        self.digests = {reference.digest for placement in placements for reference in placement.versions}
        self.entries: list[tuple[int, OperationRecord | None]] = []
        self._numbers: dict[tuple[int, OperationRecord | None], int] = {}
        self._documents: dict[int, Placement] = {}
        self._snapshots: dict[tuple[int, int], ClusterSnapshot] = {}
        self._held: dict[Any, frozenset[tuple[str, int]]] = {}
        slots = placements[0].slots
        buckets = range(_TABLE.buckets)
        self._slots = {bucket: slot_of(_TABLE.name, bucket, slots) for bucket in buckets}
        assert set(self._slots.values()) == set(range(slots))

    def number(self, current: int, operation: OperationRecord | None) -> int:
        """Return the number of a content."""
        key = current, operation
        if key not in self._numbers:
            self._numbers[key] = len(self.entries)
            self.entries.append(key)
        return self._numbers[key]

    def placement(self, epoch: int) -> Placement:
        """Return the document of an epoch: the first, then the targets of the first operation, then of the next."""
        if epoch not in self._documents:
            targets = self._placements[1:]
            content = self._placements[0] if epoch == 1 else targets[(epoch - 2) % len(targets)]
            self._documents[epoch] = replace(content, epoch=epoch)
        return self._documents[epoch]

    def last_epoch(self, history: History) -> int:
        """Return the highest epoch that was ever written."""
        operations = [self.entries[number][1] for number in history]
        return max([1, *(one.target_epoch + len(one.later_digests) for one in operations if one is not None)])

    def operation(self, current: int, last_epoch: int) -> OperationRecord:
        """Return a new operation, as the driver would write it."""
        targets = [self.placement(last_epoch + 1 + wave) for wave in range(len(self._placements) - 1)]
        return OperationRecord(
            id=f"after-{last_epoch}",
            kind="reshard",
            state=OperationState.PLANNED,
            base_epoch=current,
            target_epoch=targets[0].epoch,
            target_digest=targets[0].digest,
            owner="c",
            base_digest=self.placement(current).digest,
            later_digests=tuple(target.digest for target in targets[1:]),
            origin_epoch=current,
            routers=("r",),
        )

    def snapshot(self, history: History, position: int) -> ClusterSnapshot:
        """Return what the product's reducer makes of the store as it was at a position of the history."""
        key = history[position], position
        if key not in self._snapshots:
            current, operation = self.entries[history[position]]
            document = self.placement(current)
            pointer = CurrentRecord(1, current, document.digest, "o", document.versions)
            entries = [Entry(KEYS.current(MODEL), pointer.to_bytes(), 1, 1)]
            epochs = {current}
            if operation is not None:
                entries.append(Entry(KEYS.operation(MODEL), operation.to_bytes(), position + 1, 1))
                epochs |= {operation.base_epoch, operation.target_epoch}
            for epoch in epochs:
                entries.append(Entry(KEYS.placement(MODEL, epoch), self.placement(epoch).to_bytes(), 1, 1))
            snapshot = replace_all(KEYS, ClusterSnapshot(), Listing(tuple(entries), position + 1))
            assert not snapshot.problems, snapshot.problems
            self._snapshots[key] = snapshot
        return self._snapshots[key]

    def view(self, history: History, position: int) -> ModelView:
        """Return the model in `snapshot`."""
        return self.snapshot(history, position).models[MODEL]

    def held(self, history: History, position: int, server: str, *, without_base: bool) -> frozenset[tuple[str, int]]:
        """Return (package digest, slot) of all that a server holds by its view of a position."""
        key = history[position], position, server
        if key not in self._held:
            view = self.view(history, position)
            if without_base:
                view = replace(view, base=None)
            desired = desired_packages(view.held, server, lambda *_: _MANIFEST)
            held = {(package.digest, self._slots[b]) for package, one in desired.items() for b in one.buckets[0]}
            self._held[key] = frozenset(held)
        return self._held[key]

    def found(
        self,
        history: History,
        servers: tuple[tuple[bool, int, int], ...],
        ready: Collection[tuple[int, int, int]],
        router: tuple[int, int] | None,
    ) -> Found:
        """Return what a driver would read.

        Args:
            history: of the store.
            servers: (alive, life, position that its record is of) of each.
            ready: (epoch, server, life).
            router: (pinned, prepared) of its record, None: it has no lease.
        """
        current, operation = self.entries[history[-1]]
        assert operation is not None
        members, created = {}, {}
        for name, (alive, life, reported) in zip(self.servers, servers, strict=True):
            if not alive:
                continue
            members[name] = MemberRecord(f"{name}{life}", "h", "b", MemberState.STARTING, name, 1, 0)
            created[name] = life + 1
            if reported >= 0:
                view = self.view(history, reported)
                assert view.placement is not None
                members[name] = replace(
                    members[name],
                    state=MemberState.SERVING,
                    epochs={MODEL: view.placement.epoch},
                    released=released(self.snapshot(history, reported)),
                )
        document, target = self.placement(current), self.placement(operation.target_epoch)
        reports = {}
        for epoch, server, life in ready:
            name = self.servers[server]
            entry = Entry(KEYS.ready(MODEL, epoch, name), b"", 1, life + 1)
            reports[epoch, name] = entry, ReadyRecord(f"{name}{life}", self.placement(epoch).digest, 1)
        return Found(
            model=MODEL,
            current=CurrentRecord(1, current, document.digest, "o", document.versions),
            current_version=1,
            current_placement=document,
            operation=operation,
            operation_version=len(history),
            target=target,
            base=self.placement(operation.base_epoch),
            ready=reports,
            members=members,
            created=created,
            routers={"r": RouterRecord("r", "h", {MODEL: router[0]}, {MODEL: router[1]})} if router else {},
        )
