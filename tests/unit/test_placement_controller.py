"""Controllers on virtual time: they go on with what nobody drives, one at a time, and give way to operators."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

from placement.change import Change, ChangeDriver
from placement.controller import Controller, to_carry_on
from placement.found import Found, Reader
from placement.lock import LOCK_TTL_S
from placement.memory_store import MemoryStore
from placement.records import LockRecord, OperationRecord, OperationState
from placement.snapshot import ClusterSnapshot, ModelView
from support.fake_cluster import KEYS, MODEL, FakeRouter, FakeServer, make_current, make_placement
from support.faulty_store import Faults, FaultyStore, LoopClock, VirtualLoop

S = OperationState


@dataclass
class Cluster:
    """Servers a, b and c, whose placement is on a and b; `links` are the controllers' ways to the store."""

    store: MemoryStore
    links: list[FaultyStore] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def add_controller(self) -> Controller:
        link = FaultyStore(self.store, random.Random(len(self.links)), Faults(0, 0, 0, 0, 0))
        name = f"controller {len(self.links)}"
        controller = Controller(link, KEYS, owner=name, clock=LoopClock(), rng=random.Random(len(self.links)))
        self.links.append(link)
        self.controllers.append(controller)
        self.running.append(asyncio.create_task(controller.run()))
        return controller

    def driver(self, owner: str = "ana") -> ChangeDriver:
        return ChangeDriver(self.store, KEYS, MODEL, owner=owner, clock=LoopClock())

    async def found(self) -> Found:
        return await Reader(self.store, KEYS, MODEL).read()

    async def change_to(self, servers: str, **settings: Any) -> Change:
        found = await self.found()
        return Change(found, (make_placement(found.last_epoch + 1, servers),), "reshard", f"to {servers}", **settings)

    async def until(self, state: OperationState, timeout_s: float = 120.0) -> Found:
        async with asyncio.timeout(timeout_s):
            while True:
                found = await self.found()
                if found.operation is not None and found.operation.state is state:
                    return found
                await asyncio.sleep(0.1)

    async def leader(self) -> int:
        """Return the number of the controller that is elected, as soon as there is one."""
        async with asyncio.timeout(120):
            while True:
                entry = await self.store.get(KEYS.controller)
                if entry is not None:
                    name = LockRecord.from_bytes(entry.value, entry.key).owner
                    return int(name.removeprefix("controller "))
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    store = MemoryStore(clock=LoopClock(), rng=random.Random(1))
    await make_current(store, make_placement(1, "ab"))
    async with contextlib.AsyncExitStack() as stack:
        for name in "abc":
            await stack.enter_async_context(FakeServer(store, name))
        await stack.enter_async_context(FakeRouter(store))
        one = Cluster(store)
        try:
            yield one
        finally:
            for task in one.running:
                task.cancel()
            await asyncio.gather(*one.running, return_exceptions=True)
    await store.close()


def run(body: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body)


def test_what_a_command_left_behind_is_carried_on_to_its_end() -> None:
    async def body() -> None:
        async with cluster() as one:
            one.add_controller()
            begun = await one.driver().begin(await one.change_to("bc"), timeout_s=60, wait=False)
            assert begun.state is S.PREPARING
            done = await one.until(S.DONE)
            assert done.operation
            assert (done.operation.id, done.operation.owner) == (begun.id, "controller 0")
            assert done.current
            assert done.current.epoch == 2

    run(body())


def test_a_living_command_keeps_its_change_to_itself() -> None:
    async def body() -> None:
        async with cluster() as one, FakeServer(one.store, "d", stages=False) as late:
            one.add_controller()
            await one.leader()
            changing = asyncio.create_task(one.driver().begin(await one.change_to("bd"), timeout_s=600))
            await one.until(S.PREPARING)
            await asyncio.sleep(10 * LOCK_TTL_S)
            late.stages = True
            await late.apply(late.view.snapshot)
            assert (await changing).owner == "ana"

    run(body())


def test_two_controllers_of_which_one_leads_and_the_other_takes_over_when_it_is_killed() -> None:
    async def body() -> None:
        async with cluster() as one, FakeServer(one.store, "d", stages=False) as late:
            for _ in range(2):
                one.add_controller()
            first = await one.leader()
            await one.driver().begin(await one.change_to("bd"), timeout_s=60, wait=False)
            await asyncio.sleep(30)
            assert [controller.leading for controller in one.controllers] == [first == 0, first == 1]
            one.links[first].cut = True  # nothing of it reaches the store any more, as when it is killed
            await asyncio.sleep(3 * LOCK_TTL_S)
            assert await one.leader() == 1 - first
            late.stages = True
            await late.apply(late.view.snapshot)
            done = await one.until(S.DONE)
            assert done.operation
            assert done.operation.owner == f"controller {1 - first}"
            one.links[first].cut = False  # it comes back, and finds that it leads no longer
            await asyncio.sleep(30)
            assert [controller.leading for controller in one.controllers] == [first == 1, first == 0]

    run(body())


def test_an_operator_gets_the_change_from_a_controller_that_waits() -> None:
    async def body() -> None:
        async with cluster() as one, FakeServer(one.store, "d", stages=False):
            one.add_controller()
            await one.driver().begin(await one.change_to("bd"), timeout_s=60, wait=False)
            await asyncio.sleep(60)
            aborted = await one.driver("bob").abort("enough", timeout_s=120)
            assert (aborted.state, aborted.owner, aborted.error) == (S.ABORTED, "bob", "enough")

    run(body())


def test_what_is_paused_or_held_is_left_alone() -> None:
    async def body() -> None:
        async with cluster() as one:
            controller = one.add_controller()
            await one.leader()
            await one.driver().begin(await one.change_to("bc", hold=True), timeout_s=60, wait=False)
            found = await one.until(S.PREPARED)
            await asyncio.sleep(60)
            assert (await one.found()).operation == found.operation
            await one.driver().pause(timeout_s=60)
            await one.driver().abort("no", timeout_s=60)
            assert controller.leading

    run(body())


def test_loads_and_ended_operations_are_not_carried_on() -> None:
    def view(kind: str, state: OperationState, **marks: Any) -> ModelView:
        return ModelView(operation=OperationRecord("o", kind, state, 1, 2, "d", "ana", **marks))

    models = {
        "load": view("load", S.PREPARING),
        "done": view("reshard", S.DONE),
        "paused": view("reshard", S.PREPARING, paused=True),
        "held": view("reshard", S.PREPARED, hold=True),
        "held, not there yet": view("reshard", S.PREPARING, hold=True),
        "aborting": view("rollout", S.ABORTING),
        "none": ModelView(),
    }
    assert set(to_carry_on(ClusterSnapshot(models=models))) == {"held, not there yet", "aborting"}
