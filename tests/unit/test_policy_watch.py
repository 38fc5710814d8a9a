"""The loop around a policy file: no test waits for a poll, each asks for one."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from batching.policy_file import PolicyFile
from router.batch_policies import PolicySource
from router.policy_watch import PolicyWatch
from tessera.errors import InvalidArgumentError

_NEVER_S = 3600.0


def _parse(text: str, place: str) -> PolicyFile:
    if text == "wrong":
        raise InvalidArgumentError(f"{place}: wrong")
    content: Any = text  # stands for what it says
    return content  # type: ignore[no-any-return]


async def _read_now(watch: PolicyWatch, until: Callable[[], bool]) -> None:
    watch.read_now()
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0)


def test_what_the_file_says_is_applied_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "policies"
    path.write_text("one")
    applied: list[object] = []

    def apply(policies: PolicyFile) -> Sequence[str]:
        applied.append(policies)
        if policies == "refused":  # type: ignore[comparison-overlap]
            raise InvalidArgumentError("weight: got 0")
        return ["model m region r: weight 1 → 2"] if policies == "two" else []  # type: ignore[comparison-overlap]

    async def main() -> None:
        watch = PolicyWatch(PolicySource("--f", str(path), _parse), apply, poll_s=_NEVER_S)
        await _read_now(watch, lambda: "changed: 0" in caplog.text)
        path.write_text("two")
        await _read_now(watch, lambda: "changed: 1" in caplog.text)
        path.write_text("wrong")
        await _read_now(watch, lambda: "the policies stay" in caplog.text)
        path.write_text("refused")
        await _read_now(watch, lambda: caplog.text.count("the policies stay") == 2)
        path.unlink()
        await _read_now(watch, lambda: caplog.text.count("the policies stay") == 3)
        path.write_text("two")
        await _read_now(watch, lambda: len(applied) == 4)
        await watch.stop()
        await watch.stop()

    asyncio.run(main())
    assert applied == ["one", "two", "refused", "two"]
    messages = [record.getMessage() for record in caplog.records if record.name == "router.policy_watch"]
    assert messages[:6] == [
        f"--f {path}: read again, policies that changed: 0",
        "model m region r: weight 1 → 2",
        f"--f {path}: read again, policies that changed: 1",
        f"--f: {path}: wrong; the policies stay as they were",
        "weight: got 0; the policies stay as they were",
        f"--f: {path}; No such file or directory; the policies stay as they were",
    ]


def test_without_a_change_nothing_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "policies"
    path.write_text("one")
    polls = 0

    class Counted(PolicySource):
        def poll(self, *, at_once: bool = False) -> PolicyFile | None:
            nonlocal polls
            polls += 1
            return super().poll(at_once=at_once)

    async def main() -> None:
        watch = PolicyWatch(Counted("--f", str(path), _parse), lambda _: pytest.fail("applied"), poll_s=0.001)
        async with asyncio.timeout(10):
            while polls < 3:  # noqa: ASYNC110 (likewise)
                await asyncio.sleep(0)
        await watch.stop()

    asyncio.run(main())
