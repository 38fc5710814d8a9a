import asyncio
from typing import Any, cast

from placement.reconcile import Reconciler
from placement.view import ClusterSnapshot, ClusterView
from tessera.errors import DataLossError


class _View:
    """Stands in for a ClusterView: a snapshot and its subscribers."""

    def __init__(self) -> None:
        self.snapshot = ClusterSnapshot(revision=1)
        self._subscribers: list[Any] = []

    def subscribe(self, callback: Any) -> None:
        self._subscribers.append(callback)

    def change(self, revision: int) -> None:
        self.snapshot = ClusterSnapshot(revision=revision)
        for callback in self._subscribers:
            callback(self.snapshot)


async def _until(condition: Any) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


def test_it_begins_at_once_and_follows_changes_one_at_a_time() -> None:
    async def main() -> list[int]:
        view, seen, busy = _View(), [], 0

        async def apply(snapshot: ClusterSnapshot) -> bool:
            nonlocal busy
            busy += 1
            assert busy == 1
            await asyncio.sleep(0)
            busy -= 1
            seen.append(snapshot.revision)
            return True

        reconciler = Reconciler(cast(ClusterView, view), apply)
        reconciler.start()
        await _until(lambda: seen == [1])
        view.change(2)
        view.change(3)
        await _until(lambda: seen[-1] == 3)
        await reconciler.stop()
        await reconciler.stop()
        return seen

    assert asyncio.run(main()) in ([1, 3], [1, 2, 3])


def test_what_failed_is_told_and_tried_again_until_it_is_done() -> None:
    async def main() -> tuple[int, list[str]]:
        attempts, told = 0, []

        async def apply(_: ClusterSnapshot) -> bool:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise DataLossError("blob ab12 is damaged")
            if attempts == 2:
                raise ZeroDivisionError
            return attempts == 4

        async def tell(problem: str) -> None:
            told.append(problem)

        reconciler = Reconciler(cast(ClusterView, _View()), apply, on_failure=tell, retry_delays_s=(0.0, 0.001))
        reconciler.start()
        await _until(lambda: attempts == 4)
        await asyncio.sleep(0.02)  # done: no further attempt
        await reconciler.stop()
        return attempts, told

    assert asyncio.run(main()) == (4, ["blob ab12 is damaged", "an internal error; its log has it"])


def test_a_stop_together_with_a_change_is_not_lost() -> None:
    async def main() -> None:
        view = _View()

        async def apply(_: ClusterSnapshot) -> bool:
            return False  # so that it waits with a time-out

        reconciler = Reconciler(cast(ClusterView, view), apply)
        reconciler.start()
        await asyncio.sleep(0.01)  # it waits for a change
        view.change(2)
        async with asyncio.timeout(10):
            await reconciler.stop()

    asyncio.run(main())
