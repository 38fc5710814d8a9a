"""Servers and a router as placement sees them, without processes: they follow the store and keep their records true."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from placement.document import PackageRef, Placement
from placement.keys import Keys
from placement.membership import Registration
from placement.reconcile import Reconciler
from placement.records import CurrentRecord, MemberRecord, MemberState, RouterRecord
from placement.snapshot import ClusterSnapshot
from placement.store import Store
from placement.view import ClusterView
from shard_server.desired import released

KEYS = Keys("c")
MODEL = "m"
REF = PackageRef(1, "0" * 64)
SLOTS = 12


def make_placement(epoch: int, servers: str, *, replicas: int = 1, version: PackageRef = REF) -> Placement:
    """Return a placement on servers that are named by single letters, slots in turn."""
    ids = tuple(sorted(servers))
    rows = tuple(tuple((slot + r) % len(ids) for r in range(replicas)) for slot in range(SLOTS))
    return Placement(MODEL, epoch, 1, SLOTS, ids, rows, (version,))


async def make_current(store: Store, placement: Placement) -> None:
    """Make `placement` current, as a load would have done."""
    await store.put(KEYS.placement(MODEL, placement.epoch), placement.to_bytes())
    current = CurrentRecord(1, placement.epoch, placement.digest, "load", placement.versions)
    await store.put(KEYS.current(MODEL), current.to_bytes())


class _Process(ABC):
    def __init__(self, store: Store, registration: Registration) -> None:
        self.registration = registration
        self.view = ClusterView(store, KEYS, rng=random.Random(1))
        self.reconciler = Reconciler(self.view, self.apply, retry_delays_s=(0.05,))

    async def __aenter__(self) -> Any:
        await self.registration.start()
        self.view.start()
        self.reconciler.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reconciler.stop()
        await self.view.stop()
        await self.registration.stop()

    async def update(self, **changes: Any) -> None:
        record = replace(self.registration.record, **changes)
        if record != self.registration.record:
            await self.registration.update(record)

    @abstractmethod
    async def apply(self, snapshot: ClusterSnapshot) -> bool:
        """Do what the process does with a snapshot."""


class FakeServer(_Process):
    """Holds what it has to in `slots`; `stages` False: it never gets a target ready."""

    def __init__(self, store: Store, server: str, *, stages: bool = True, capacity_bytes: int = 1 << 40) -> None:
        record = MemberRecord(
            f"i-{server}-{random.random()}", "h:1", "b", MemberState.STARTING, server, capacity_bytes, 0
        )
        super().__init__(store, Registration(store, KEYS.member(server), record))
        self.id, self.stages = server, stages
        self.slots: set[int] = set()
        self._released: dict[str, int] = {}

    async def apply(self, snapshot: ClusterSnapshot) -> bool:
        """Do what a shard server does with a snapshot."""
        complete = True
        for view in snapshot.models.values():
            self.slots = {
                slot
                for placement in view.held
                for slot, row in enumerate(placement.slot_servers)
                if self.id in [placement.servers[position] for position in row]
            }
            for target in view.staged if self.stages else ():
                if self.id in target.servers:
                    complete &= await self.registration.report_ready(KEYS, target, view.operation_version, 1)
        self._released |= released(snapshot)
        await self.update(
            state=MemberState.SERVING,
            epochs={name: view.epoch for name, view in snapshot.models.items() if view.epoch},
            released=dict(self._released),
        )
        return complete


class FakeRouter(_Process):
    """Uses what is current, and says so; `pin` is an epoch that a long request keeps in use."""

    def __init__(self, store: Store, router: str = "r", *, pin: int = 1 << 60) -> None:
        record = RouterRecord(f"i-{router}", "h:2")
        known_key = KEYS.known_router(router)
        super().__init__(store, Registration(store, KEYS.router(router), record, known_key=known_key))
        self.pin = pin

    async def apply(self, snapshot: ClusterSnapshot) -> bool:
        """Do what a router does with a snapshot."""
        models = snapshot.models.items()
        await self.update(
            pinned={name: min(self.pin, view.epoch) for name, view in models if view.epoch},
            prepared={name: max(p.epoch for p in view.held) for name, view in models if view.placement},
        )
        return True

    async def let_go(self) -> None:
        """End the long request."""
        self.pin = 1 << 60
        await self.apply(self.view.snapshot)


async def until(condition: Any, timeout_s: float = 20.0) -> None:
    """Wait until the (possibly async) `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.01)
