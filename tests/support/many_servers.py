"""Any number of servers, played by one task: for changes of clusters that are too large for a process each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from placement.membership import LEASE_TTL_S
from placement.records import MemberRecord, MemberState, ReadyRecord
from placement.snapshot import ClusterSnapshot
from placement.store import MAX_OPERATIONS, Put, Store
from placement.view import ClusterView
from shard_server.desired import released
from support.fake_cluster import KEYS, MODEL


class ManyServers:
    """Registers servers, and reports for all of them what the newest snapshot asks for.

    Args:
        store: of the cluster.
        ids: of the servers.
    """

    def __init__(self, store: Store, ids: Sequence[str]) -> None:
        self._store, self._ids = store, ids
        self._view = ClusterView(store, KEYS)
        self._changed = asyncio.Event()
        self._lease = 0

    async def __aenter__(self) -> ManyServers:
        self._lease = await self._store.grant_lease(100 * LEASE_TTL_S)
        await self._report(ClusterSnapshot())
        self._view.subscribe(lambda _: self._changed.set())
        self._view.start()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._view.stop()

    async def _run(self) -> None:
        said = (0, 0)
        while True:
            await self._changed.wait()
            self._changed.clear()
            view = self._view.snapshot.models.get(MODEL)
            now = (view.operation_version, view.placement.epoch if view.placement else 0) if view else (0, 0)
            if now != said:  # not every change: its own reports are changes, too
                said = now
                await self._report(self._view.snapshot)

    async def _report(self, snapshot: ClusterSnapshot) -> None:
        view = snapshot.models.get(MODEL)
        puts = []
        for server in self._ids:
            record = MemberRecord(
                instance=f"i-{server}",
                address="h:1",
                build="b",
                state=MemberState.SERVING,
                domain=server,
                capacity_bytes=1 << 40,
                bytes_used=0,
                epochs={MODEL: view.placement.epoch} if view and view.placement else {},
                released=released(snapshot),
            )
            puts.append(Put(KEYS.member(server), record.to_bytes(), self._lease))
            for target in view.staged if view else ():
                if server in target.servers:
                    report = ReadyRecord(record.instance, target.digest, 1)
                    puts.append(Put(KEYS.ready(MODEL, target.epoch, server), report.to_bytes(), self._lease))
        for start in range(0, len(puts), MAX_OPERATIONS):
            await self._store.transact([], puts[start : start + MAX_OPERATIONS])
