"""A control plane on virtual time: the product's view, registration, reconciler and driver over a store that fails.

One seed gives one run, to the last event. A run is seconds of virtual time and milliseconds of real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from placement.change import Change, ChangeDriver
from placement.controller import Controller
from placement.document import PackageRef, Placement
from placement.found import Reader
from placement.memory_store import MemoryStore
from placement.records import OperationState
from placement.snapshot import ClusterSnapshot
from router.pinned_epochs import pinned_epochs
from support.fake_cluster import KEYS, MODEL, SLOTS, FakeRouter, FakeServer, make_current, make_placement
from support.faulty_store import Faults, FaultyStore, LoopClock, VirtualLoop
from tessera.errors import TesseraError

S = OperationState


class SimServer(FakeServer):
    """Stages for a while; `held` is what it would answer for: (package digest, slot)."""

    def __init__(self, store: FaultyStore, server: str, rng: random.Random) -> None:
        super().__init__(store, server)
        self.link, self._rng = store, rng
        self.held: set[tuple[str, int]] = set()

    async def apply(self, snapshot: ClusterSnapshot) -> bool:
        """Hold, then say so."""
        held = set()
        for view in snapshot.models.values():
            for placement in view.held:
                for slot, row in enumerate(placement.slot_servers):
                    if self.id in [placement.servers[position] for position in row]:
                        held |= {(reference.digest, slot) for reference in placement.versions}
        if held - self.held:
            await asyncio.sleep(self._rng.uniform(0.0, 2.0))
        self.held = held
        return await super().apply(snapshot)


class SimRouter(FakeRouter):
    """Has requests of its own that last; each pins the placement that is served when it begins."""

    def __init__(self, store: FaultyStore, router: str) -> None:
        super().__init__(store, router)
        self.link = store
        self.placement: Placement | None = None
        self.running: list[int] = []
        self._snapshot = ClusterSnapshot()

    async def apply(self, snapshot: ClusterSnapshot) -> bool:
        """Serve what is current, then say what is in use."""
        self._snapshot = snapshot
        for view in snapshot.models.values():
            self.placement = view.placement
        await self.report()
        return True

    async def report(self) -> None:
        """Bring the record up to date."""
        if self.placement is None:
            return
        oldest = {MODEL: min(self.running)} if self.running else {}
        prepared = max(placement.epoch for placement in self._snapshot.models[MODEL].held)
        await self.update(pinned=pinned_epochs({MODEL: self.placement.epoch}, oldest), prepared={MODEL: prepared})


@dataclass
class Simulation:
    """One run. `failures` are requests that found nobody; `states` how operations ended.

    With `controllers` so many of them run, are killed and come back; operators then also pause and hold changes.
    """

    seed: int
    controllers: int = 0
    failures: list[str] = field(default_factory=list)
    requests: int = 0
    states: list[OperationState] = field(default_factory=list)

    def run(self) -> Simulation:
        """Run it to its end, and check that everything is as it should be then."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(self._main())
        return self

    async def _main(self) -> None:
        self.rng = random.Random(self.seed)
        self.faults = Faults()
        self.store = MemoryStore(clock=LoopClock(), rng=random.Random(self.seed), kept_batches=40)
        await make_current(self.store, make_placement(1, "ab"))
        async with contextlib.AsyncExitStack() as stack:
            self.servers = {name: SimServer(self._link(), name, self.rng) for name in "abcd"}
            self.routers = [SimRouter(self._link(), f"r{number}") for number in range(2)]
            processes: list[SimServer | SimRouter] = [*self.servers.values(), *self.routers]
            for process in processes:
                await self._patiently(stack.enter_async_context(process))
            await self._until(lambda: all(router.placement for router in self.routers))
            await self._until(lambda: len({one for s in self.servers.values() for one in s.held}) == SLOTS)
            background = [asyncio.create_task(self._ask()), asyncio.create_task(self._disturb())]
            background += [asyncio.create_task(self._control(number)) for number in range(self.controllers)]
            for _ in range(4):
                await self._operate()
            await asyncio.sleep(self.rng.uniform(0, 5))
            background[1].cancel()
            for process in processes:
                process.link.cut = False
            self.faults.__init__(0, 0, 0, 0, 0)  # type: ignore[misc]
            await self._settle()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
        await self.store.close()

    def _link(self) -> FaultyStore:
        return FaultyStore(self.store, random.Random(self.rng.random()), self.faults)

    async def _patiently(self, starting: Coroutine[Any, Any, Any]) -> None:
        chances, self.faults.lost = self.faults.lost, 0.0
        lost_answer, self.faults.lost_answer = self.faults.lost_answer, 0.0
        await starting
        self.faults.lost, self.faults.lost_answer = chances, lost_answer

    async def _until(self, condition: Any, timeout_s: float = 300.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 (what is awaited is a sum of many things)
                await asyncio.sleep(0.05)

    def _driver(self, owner: str) -> ChangeDriver:
        return ChangeDriver(self._link(), KEYS, MODEL, owner=owner, clock=LoopClock())

    async def _operate(self) -> None:
        """Make a change; it may be killed and taken up, given up, or meet a second operator."""
        rng = self.rng
        found = await Reader(self.store, KEYS, MODEL).read()
        if found.operation is None or not found.operation.active:
            current = found.current_placement
            assert current is not None
            number = rng.choice((1, 2))
            version = current.versions[0] if rng.random() < 0.6 else PackageRef(number, str(number) * 64)
            targets = [
                make_placement(
                    found.last_epoch + 1 + wave, "".join(rng.sample("abcd", rng.choice((1, 2, 3)))), version=version
                )
                for wave in range(rng.choice((1, 1, 2)))
            ]
            hold = bool(self.controllers) and rng.random() < 0.2
            change = Change(found, tuple(targets), "reshard", "simulated", hold=hold)
            work = self._driver("first").begin(change, timeout_s=rng.uniform(1, 60))
        else:
            work = self._driver("again").resume(timeout_s=rng.uniform(1, 60))
        tasks = [asyncio.create_task(work)]
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 10))
            second = self._driver("second")
            rival = second.abort("given up", timeout_s=20) if rng.random() < 0.5 else second.resume(timeout_s=20)
            if self.controllers and rng.random() < 0.3:
                rival.close()
                rival = second.pause(timeout_s=20)
            tasks.append(asyncio.create_task(rival))
        if rng.random() < 0.5:
            await asyncio.sleep(rng.uniform(0, 15))
            tasks[0].cancel()  # as good as killed: nothing is cleaned up that a lease would not end
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(outcome, Exception) or isinstance(outcome, TesseraError), repr(outcome)

    async def _control(self, number: int) -> None:
        """Run a controller, kill it now and then, and start it again."""
        rng = random.Random(self.rng.random())
        while True:
            link = self._link()
            controller = Controller(link, KEYS, owner=f"controller {number}", clock=LoopClock(), rng=rng)
            running = asyncio.create_task(controller.run())
            try:
                await asyncio.sleep(rng.uniform(5, 120))
            finally:
                link.cut = True  # before it ends: a process that is killed cleans nothing up
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def _disturb(self) -> None:
        """Cut processes off for a while, and compact the store's history."""
        while True:
            await asyncio.sleep(self.rng.uniform(1, 15))
            processes: list[SimServer | SimRouter] = [*self.servers.values(), *self.routers]
            victim = self.rng.choice(processes)
            victim.link.cut = True
            await asyncio.sleep(self.rng.uniform(0, 15))
            victim.link.cut = False
            if self.rng.random() < 0.5:
                listing = await self.store.list_prefix(KEYS.prefix)
                self.store.compact(listing.revision)

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0, 0.2))
            asyncio.get_running_loop().create_task(self._request(self.rng.choice(self.routers)))

    async def _request(self, router: SimRouter) -> None:
        """Pin what is served, and ask for every slot, one after the other, for up to two seconds."""
        placement = router.placement
        assert placement is not None
        router.running.append(placement.epoch)
        self.requests += 1
        slots = self.rng.sample(range(SLOTS), 4)
        for slot in slots:
            await asyncio.sleep(self.rng.uniform(0, 0.5))
            owners = [placement.servers[position] for position in placement.slot_servers[slot]]
            wanted = placement.versions[0].digest, slot
            if not any(wanted in self.servers[owner].held for owner in owners):
                self.failures.append(f"slot {slot} of epoch {placement.epoch} at {LoopClock().monotonic_s():.1f} s")
        router.running.remove(placement.epoch)
        if placement.epoch != router.placement.epoch:  # type: ignore[union-attr]
            await router.report()

    async def _settle(self) -> None:
        """End what is under way; nothing may be left behind."""
        await asyncio.sleep(20)  # for the lock of whoever was killed
        found = await Reader(self.store, KEYS, MODEL).read()
        if found.operation is not None and found.operation.hold and found.operation.active:
            await self._driver("last").abort("nobody commits it", timeout_s=300)
        elif found.operation is not None and self.controllers and not found.operation.paused:
            while (found := await Reader(self.store, KEYS, MODEL).read()).operation.active:  # type: ignore[union-attr]
                await asyncio.sleep(1)  # the controllers end it by themselves
                assert asyncio.get_running_loop().time() < 3000, found.operation
        if found.operation is not None:
            self.states.append((await self._driver("last").resume(timeout_s=300)).state)
        current = (await Reader(self.store, KEYS, MODEL).read()).current_placement
        assert current is not None
        held = {
            server: {
                (current.versions[0].digest, slot)
                for slot, row in enumerate(current.slot_servers)
                if server in [current.servers[position] for position in row]
            }
            for server in self.servers
        }
        await self._until(lambda: {name: server.held for name, server in self.servers.items()} == held)
