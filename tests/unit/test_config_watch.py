"""The model config file is followed: changes are applied, errors are told once and change nothing."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from router.config_watch import ConfigWatch
from router.lifecycle.config import ModelConfig, ServerConfig
from tessera.errors import InvalidArgumentError, TesseraError, UnavailableError


def _config(*names: str) -> ServerConfig:
    return ServerConfig(tuple(ModelConfig(name, Path("/m") / name) for name in names))


class _File:
    """What the file says now, and what was made of it."""

    def __init__(self) -> None:
        self.content: ServerConfig | TesseraError = _config("a")
        self.refusal: TesseraError | None = None
        self.applied: list[ServerConfig] = []
        self.tries = 0
        self.looks = 0

    def read(self) -> ServerConfig:
        self.looks += 1
        if isinstance(self.content, TesseraError):
            raise self.content
        return self.content

    async def apply(self, config: ServerConfig) -> None:
        self.tries += 1
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(config)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.001)

    async def looked(self, more: int = 6) -> None:
        """Wait until the file was looked at a few times."""
        target = self.looks + more
        await self.until(lambda: self.looks >= target)


def _watch(file: _File) -> ConfigWatch:
    return ConfigWatch(file.read, file.apply, _config("a"), poll_s=0.001, retry_s=0.01, settle_s=0.001)


def test_a_change_is_applied_once() -> None:
    async def run() -> None:
        file = _File()
        watch = _watch(file)
        await file.looked()
        assert file.applied == []
        file.content = _config("a", "b")
        await file.until(lambda: bool(file.applied))
        await file.looked()
        assert file.applied == [_config("a", "b")]
        await watch.stop()
        await watch.stop()

    asyncio.run(run())


def test_what_is_wrong_is_told_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        file = _File()
        watch = _watch(file)
        file.content = InvalidArgumentError("Invalid protobuf file: '/x'")
        await file.until(lambda: bool(caplog.records))
        await file.looked()
        assert file.tries == 0
        file.content = _config("c")
        await file.until(lambda: file.applied == [_config("c")])
        await watch.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [record.message for record in caplog.records] == [
        "--model-config-file: Invalid protobuf file: '/x'; what is served stays as it was"
    ]


def test_what_cannot_be_served_yet_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        file = _File()
        watch = _watch(file)
        file.refusal = UnavailableError("model b: nothing there")
        file.content = _config("b")
        await file.until(lambda: file.tries >= 3)
        file.refusal = None
        await file.until(lambda: file.applied == [_config("b")])
        await watch.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert len(caplog.records) == 1


def test_what_is_refused_is_not_tried_again() -> None:
    async def run() -> None:
        file = _File()
        watch = _watch(file)
        file.refusal = InvalidArgumentError("Illegal to list model b multiple times in config list")
        file.content = _config("b", "b")
        await file.until(lambda: file.tries == 1)
        await file.looked(30)
        assert file.tries == 1
        await watch.stop()

    asyncio.run(run())


def test_a_file_that_changes_while_it_is_looked_at_is_not_taken() -> None:
    async def run() -> None:
        file = _File()
        count = 0

        def read() -> ServerConfig:  # another one each time
            nonlocal count
            count += 1
            return _config(f"m{count}")

        watch = ConfigWatch(read, file.apply, _config("a"), poll_s=0.001, retry_s=1, settle_s=0.001)
        await file.until(lambda: count > 20)
        assert file.tries == 0
        await watch.stop()

    asyncio.run(run())
