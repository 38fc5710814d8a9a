"""Readiness: what is missing, and who is told when it changes."""

import asyncio

from router.readiness import Readiness


def test_it_is_told_once_per_change() -> None:
    missing: list[str] = ["model m: version 1 is loading"]
    told: list[bool] = []

    async def run() -> None:
        readiness = Readiness([lambda: missing, list], told.append, poll_s=0.001)
        assert readiness.missing == ("the router is starting",)
        readiness.start()
        assert readiness.missing == ("model m: version 1 is loading",)
        assert told == []
        missing.clear()
        await asyncio.wait_for(readiness.wait(), 5)
        assert not readiness.missing
        readiness.look()
        assert told == [True]
        missing.append("cluster c: not everything in the placement could be loaded")
        readiness.look()
        readiness.look()
        assert told == [True, False]
        missing.clear()
        readiness.look()
        await readiness.stop("the router is draining")
        await readiness.stop("the router is draining")
        assert readiness.missing == ("the router is draining",)
        assert told == [True, False, True, False]

    asyncio.run(run())


def test_all_sources_are_asked() -> None:
    async def run() -> None:
        readiness = Readiness([lambda: ["a"], lambda: ["b", "c"]], lambda _: None)
        readiness.look()
        assert readiness.missing == ("a", "b", "c")
        await readiness.stop("end")

    asyncio.run(run())
