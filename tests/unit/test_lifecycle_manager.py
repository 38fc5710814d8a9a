"""The lifecycle on an event loop: real directories, loads and graphs that the test makes up, no sockets."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from router.catalog import VersionState, VersionStatus
from router.lifecycle.actions import Limits, Load
from router.lifecycle.config import CLUSTER, All, ModelConfig, ServerConfig, Specific
from router.lifecycle.loader import Loader
from router.lifecycle.manager import LOAD_ATTEMPTS, Lifecycle
from router.lifecycle.target import PlainModel
from router.platforms.base import LoadOptions, MemoryEstimate
from tessera.clock import SystemClock
from tessera.errors import (
    Code,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    TesseraError,
    UnavailableError,
)

_TWO = Specific(frozenset({2}))


class _Graph:
    signature_defs = b"signatures"

    def __init__(self, path: Path) -> None:
        self.path, self.freed = path, threading.Event()

    def watch(self) -> _Graph:
        return self

    def wait(self, timeout_s: float) -> bool:
        return self.freed.wait(min(timeout_s, 5.0))


class _Clock(SystemClock):
    """Every file was written an hour ago."""

    def wall_s(self) -> float:
        return super().wall_s() + 3600


class _Platform:
    name = "tensorflow"

    def __init__(self) -> None:
        self.hold: dict[str, threading.Event] = {}
        self.graphs: list[_Graph] = []

    def is_complete(self, path: Path) -> bool:
        return (path / "model").exists()

    def estimate(self, path: Path) -> MemoryEstimate:
        size = (path / "model").stat().st_size
        return MemoryEstimate(size, size)

    def load(self, path: Path, options: LoadOptions) -> Any:
        assert path.name.lstrip("0") == str(options.version)
        if options.name in self.hold:
            assert self.hold[options.name].wait(10)
        if "damaged" in (path / "model").read_text():
            raise DataLossError(f"{path.name} is damaged")
        if "strange" in (path / "model").read_text():
            raise ZeroDivisionError("what")
        graph = _Graph(path)
        graph.freed.set()
        self.graphs.append(graph)
        return graph


@dataclass
class _Target:
    models: Mapping[str, PlainModel] = field(default_factory=dict)
    statuses: Mapping[str, Mapping[int, VersionStatus]] = field(default_factory=dict)
    history: list[dict[str, list[int]]] = field(default_factory=list)
    config: ServerConfig = field(default_factory=ServerConfig)
    started: bool = False
    clustered: dict[str, list[int]] = field(default_factory=dict)
    packages_bytes: int = 0

    def adopt_plain(self, model: str, version: int, graph: Any) -> None:
        if model == "unfit":
            raise FailedPreconditionError("needs a route")

    def serve_plain(self, models: Mapping[str, PlainModel], config: ServerConfig, *, started: bool) -> None:
        if models != self.models:
            self.history.append({name: list(model.graphs) for name, model in models.items()})
        self.models, self.config, self.started = models, config, started

    def cluster_versions(self, model: str) -> list[int]:
        return self.clustered.get(model, [])

    def cluster_bytes(self) -> int:
        return self.packages_bytes

    def describe_plain(self, models: Mapping[str, Mapping[int, VersionStatus]]) -> None:
        self.statuses = models

    def served(self) -> dict[str, list[int]]:
        return {name: list(model.graphs) for name, model in self.models.items()}


class _Server:
    def __init__(self, base: Path, **options: Any) -> None:
        self.base, self.target, self.platform = base, _Target(), _Platform()
        warm_up = options.pop("warm_up", None)
        limits = Limits(initial_loads=2, loads=1, retry_interval_s=0.05, **options.pop("limits", {"max_retries": 0}))
        loader = Loader(cast(Any, {"tensorflow": self.platform}), LoadOptions(), warm_up)
        self.lifecycle = Lifecycle(limits, loader, self.target, _Clock(), poll_s=options.pop("poll_s", 0.02), **options)

    def add(self, model: str, *versions: int, text: str = "fine") -> ModelConfig:
        for version in versions:
            hidden = self.base / model / "new"
            hidden.mkdir(parents=True)
            (hidden / "model").write_text(text)
            path = hidden.with_name(str(version))
            shutil.rmtree(path, ignore_errors=True)
            hidden.rename(path)
        return ModelConfig(model, self.base / model)

    async def serves(self, expected: Mapping[str, list[int]]) -> None:
        async with asyncio.timeout(10):
            while self.target.served() != expected:  # noqa: ASYNC110 - nobody tells a test
                await asyncio.sleep(0.01)

    async def status(self, model: str, version: int, state: VersionState) -> VersionStatus:
        async with asyncio.timeout(10):
            while True:
                status = self.target.statuses.get(model, {}).get(version)
                if status is not None and status.state == state:
                    return status
                await asyncio.sleep(0.01)


_Test = Callable[[_Server], Awaitable[None]]


def _run(base: Path, test: _Test, **options: Any) -> None:
    async def main() -> None:
        server = _Server(base, **options)
        try:
            async with asyncio.timeout(30):
                await test(server)
        finally:
            for event in server.platform.hold.values():
                event.set()
            await server.lifecycle.stop()
            await server.lifecycle.stop()

    asyncio.run(main())


def test_a_server_starts_and_follows_its_directories(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        a, b = server.add("a", 1), server.add("b", 1, 2)
        await server.lifecycle.start(ServerConfig((a, replace(b, versions=All(), labels={"old": 1}))), timeout_s=10)
        assert server.target.served() == {"a": [1], "b": [1, 2]}
        assert server.target.models["b"].labels == {"old": 1}
        assert server.target.statuses["a"][1] == VersionStatus(VersionState.AVAILABLE, signature_defs=b"signatures")
        assert server.lifecycle.ready() == (True, [])
        started = len(server.target.history)  # while it starts, either model may be the first
        server.add("a", 2)
        await server.serves({"a": [2], "b": [1, 2]})
        await server.status("a", 1, VersionState.END)
        shutil.rmtree(server.base / "a" / "2")
        await server.serves({"a": [1], "b": [1, 2]})
        assert all(step["a"] and step["b"] for step in server.target.history[started:])
        assert server.lifecycle.counters[LOAD_ATTEMPTS] == 5

    _run(tmp_path, test)


def test_a_start_that_fails_says_what_did_not_come(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        models = server.add("bad", 1, text="damaged"), server.add("good", 3), server.add("strange", 7, text="strange")
        with pytest.raises(TesseraError) as caught:
            await server.lifecycle.start(ServerConfig(models), timeout_s=10)
        assert caught.value.code == Code.UNKNOWN
        assert caught.value.message == (
            "2 servable(s) did not become available: {{name: bad version: 1} due to error: DATA_LOSS: 1 is damaged}, "
            "{name: strange version: 7} due to error: UNKNOWN: ZeroDivisionError: what}, }"
        )
        assert server.target.served() == {"good": [3]}
        status = await server.status("bad", 1, VersionState.END)
        assert (status.error_code, status.error_message) == (Code.DATA_LOSS, "1 is damaged")
        server.add("bad", 1, text="repaired")
        await server.serves({"good": [3], "bad": [1]})

    _run(tmp_path, test)


def test_one_error_of_the_message_is_written_as_tensorflow_serving_does(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        with pytest.raises(TesseraError) as caught:
            await server.lifecycle.start(ServerConfig((server.add("M", 1, text="damaged"),)), timeout_s=10)
        assert caught.value.message == (
            "1 servable(s) did not become available: {{name: M version: 1} due to error: DATA_LOSS: 1 is damaged}, }"
        )

    _run(tmp_path, test, limits={"max_retries": 1})


def test_a_base_path_that_is_not_there_holds_up_only_its_own_model(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        config = ServerConfig((ModelConfig("none", tmp_path / "none"), server.add("good", 1)))
        await server.lifecycle.start(config)
        assert server.target.served() == {"good": [1]}
        assert server.target.started
        assert server.lifecycle.ready() == (False, [f"model none: {tmp_path}/none was not read yet"])
        server.add("none", 1)
        await server.serves({"good": [1], "none": [1]})
        assert server.lifecycle.ready() == (True, [])

    _run(tmp_path, test)


def test_a_start_waits_for_what_is_there_and_for_nothing_else(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        (tmp_path / "empty").mkdir()
        models = ModelConfig("empty", tmp_path / "empty"), replace(server.add("other", 1), versions=_TWO)
        hold = server.platform.hold["slow:1"] = threading.Event()
        start = asyncio.create_task(server.lifecycle.start(ServerConfig((*models, server.add("slow", 1)))))
        await server.status("slow", 1, VersionState.LOADING)
        done, _ = await asyncio.wait((start,), timeout=0.2)
        assert not done
        assert not server.target.started
        hold.set()
        await start
        assert server.target.started
        assert server.target.served() == {"slow": [1]}
        assert server.lifecycle.ready()[1] == [
            f"model empty: no version found under {tmp_path}/empty",
            "model other version 2: not on disk, or not complete",
        ]
        mended = ServerConfig((replace(models[0], base_path=server.add("elsewhere", 1).base_path),))
        await server.lifecycle.apply(mended, timeout_s=10)
        await server.serves({"empty": [1]})
        assert server.lifecycle.ready() == (True, [])

    _run(tmp_path, test)


def test_a_start_that_takes_too_long_goes_on_behind_an_open_door(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        hold = server.platform.hold["slow:1"] = threading.Event()
        await server.lifecycle.start(ServerConfig((server.add("slow", 1),)), timeout_s=0.2)
        assert server.target.started
        assert not server.lifecycle.ready()[0]
        hold.set()
        await server.serves({"slow": [1]})
        assert server.lifecycle.ready() == (True, [])

    _run(tmp_path, test)


def test_models_of_the_cluster_are_configured_with_all_others(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        server.target.clustered["c"] = [1, 2]
        a, c = server.add("a", 1), ModelConfig("c", Path(), CLUSTER, labels={"stable": 1})
        await server.lifecycle.start(ServerConfig((a, replace(c, labels={"later": 9}))), timeout_s=10)
        assert server.target.served() == {"a": [1]}
        assert [model.labels for model in server.target.config.clustered] == [{"later": 9}]  # before it is followed
        for labels, other in (({"stable": 3}, a), ({"stable": 1}, server.add("bad", 1, text="damaged"))):
            with pytest.raises(TesseraError, match=r"assign label to version 3 of model c,|bad version: 1"):
                await server.lifecycle.apply(ServerConfig((replace(c, labels=labels), other)), timeout_s=10)
            assert [model.labels for model in server.target.config.clustered] == [{"later": 9}]
        await server.lifecycle.apply(ServerConfig((a, c)), timeout_s=10)
        assert server.target.config == ServerConfig((a, c))
        assert server.lifecycle.ready() == (True, [])
        server.target.clustered.clear()
        lines = ["model c: the cluster has no placement of it that could be loaded"]
        assert server.lifecycle.ready() == (False, lines)
        with pytest.raises(InvalidArgumentError, match="Illegal to change a model's platform"):
            await server.lifecycle.apply(ServerConfig((replace(a, platform=CLUSTER, base_path=Path()),)))

    _run(tmp_path, test, in_cluster=True)


def test_packages_of_the_cluster_take_memory_too(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        server.target.packages_bytes = 97
        a = server.add("a", 1)  # four bytes
        await server.lifecycle.start(ServerConfig((ModelConfig("empty", tmp_path / "empty"),)))
        with pytest.raises(TesseraError, match=r"Insufficient resources to load servable \{name: a version: 1\}"):
            await server.lifecycle.apply(ServerConfig((a,)), timeout_s=10)
        assert server.lifecycle.used_bytes() == 0
        server.target.packages_bytes = 96
        await server.lifecycle.apply(ServerConfig((a,)), timeout_s=10)
        assert server.target.served() == {"a": [1]}
        assert server.lifecycle.used_bytes() == 4

    _run(tmp_path, test, limits={"max_retries": 0, "memory_bytes": 100})


def test_a_flat_model_must_be_there(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        with pytest.raises(NotFoundError, match=f"model m: {tmp_path}/none holds neither saved_model.pb"):
            await server.lifecycle.start(ServerConfig((ModelConfig("m", tmp_path / "none", flat=True),)), timeout_s=10)

    _run(tmp_path, test)


def test_applying_a_configuration_shows_all_changes_at_once(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        a, b, c = server.add("a", 1), server.add("b", 1), server.add("c", 1, 2)
        await server.lifecycle.start(ServerConfig((a, b)), timeout_s=10)
        server.target.history.clear()
        new = ServerConfig((replace(a, labels={"stable": 1}), replace(c, versions=All(), labels={"canary": 2})))
        await server.lifecycle.apply(new, timeout_s=10)
        assert server.target.history == [{"a": [1], "c": [1, 2]}]
        assert server.target.models["a"].labels == {"stable": 1}
        assert server.target.models["c"].labels == {"canary": 2}
        assert server.lifecycle.config == new
        await server.status("b", 1, VersionState.END)

    _run(tmp_path, test)


@pytest.mark.parametrize("unavailable_allowed", [False, True])
def test_a_refused_configuration_leaves_everything_as_it_was(tmp_path: Path, unavailable_allowed: bool) -> None:
    async def test(server: _Server) -> None:
        a = replace(server.add("a", 1, 2), versions=All(), labels={"stable": 1})
        old = ServerConfig((a,))
        await server.lifecycle.start(old, timeout_s=10)
        before, published = dict(server.target.models), len(server.target.history)
        bad, unfit = server.add("bad", 1, text="damaged"), server.add("unfit", 1)
        refused: list[tuple[tuple[ModelConfig, ...], type[TesseraError], str]] = [
            ((a, a), InvalidArgumentError, "Illegal to list model a multiple times"),
            ((replace(a, platform="p"),), InvalidArgumentError, "Illegal to change a model's platform"),
            ((replace(a, labels={"stable": 3}),), FailedPreconditionError, "assign label to version 3 of model a,"),
            ((replace(a, labels={"stable": 2}), bad), TesseraError, r"1 model\(s\) did not .* DATA_LOSS: 1 is damaged"),
            ((bad,), TesseraError, r"1 model\(s\) did not become available"),
            ((unfit,), TesseraError, "FAILED_PRECONDITION: needs a route"),
            ((a, ModelConfig("none", tmp_path / "none")), DeadlineExceededError, r"1 model\(s\) did not"),
        ]
        if not unavailable_allowed:
            new = replace(server.add("new", 1), labels={"canary": 2})
            refused.append(((a, new), FailedPreconditionError, "assign label to version 2 of model new,"))
            refused.append(
                ((replace(a, labels={"new": 9}),), FailedPreconditionError, "label to version 9 of model a,")
            )
        for models, error, text in refused:
            timeout_s = 0.5 if error is DeadlineExceededError else 20.0
            with pytest.raises(error, match=text):
                await server.lifecycle.apply(ServerConfig(models), timeout_s=timeout_s)
            assert server.lifecycle.config == old
            assert server.target.models == before
        assert len(server.target.history) == published
        assert server.lifecycle.ready() == (True, [])

    _run(tmp_path, test, allow_labels_for_unavailable=unavailable_allowed)


def test_labels_may_wait_for_their_version_when_that_is_allowed(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        a = replace(server.add("a", 1), versions=All(), labels={"canary": 2})
        await server.lifecycle.start(ServerConfig((a,)), timeout_s=10)
        assert server.target.models["a"].labels == {}
        server.add("a", 2)
        await server.serves({"a": [1, 2]})
        assert server.target.models["a"].labels == {"canary": 2}

    _run(tmp_path, test, allow_labels_for_unavailable=True)


def test_a_version_serves_only_after_its_warm_up(tmp_path: Path) -> None:
    warmed = []

    def warm_up(load: Load, graph: Any) -> int:
        if load.version == 2:
            raise InvalidArgumentError("warm-up request 1: no such input")
        warmed.append((load.model, load.version))
        return 1

    async def test(server: _Server) -> None:
        await server.lifecycle.start(ServerConfig((server.add("a", 1),)), timeout_s=10)
        assert warmed == [("a", 1)]
        server.add("a", 2)
        status = await server.status("a", 2, VersionState.END)
        assert status.error_message == "warm-up request 1: no such input"
        assert server.target.served() == {"a": [1]}
        assert server.lifecycle.ready() == (True, [])

    _run(tmp_path, test, warm_up=warm_up)


def test_looking_once_and_never(tmp_path: Path) -> None:
    async def once(server: _Server) -> None:
        await server.lifecycle.start(ServerConfig((server.add("a", 1),)), timeout_s=10)
        server.add("a", 2)
        await asyncio.sleep(0.1)
        assert server.target.served() == {"a": [1]}
        await server.lifecycle.apply(ServerConfig((server.add("a", 1), server.add("b", 1))), timeout_s=10)
        assert server.target.served() == {"a": [1], "b": [1]}
        await server.lifecycle.apply(ServerConfig((replace(server.add("a"), versions=Specific(frozenset({2}))),)))
        await server.serves({"a": [2]})

    async def never(server: _Server) -> None:
        a = server.add("a", 1)
        await server.lifecycle.start(ServerConfig((a,)))
        assert server.lifecycle.ready() == (False, [f"model a: {a.base_path} was not read yet"])

    _run(tmp_path / "once", once, poll_s=0.0)
    _run(tmp_path / "never", never, poll_s=-1.0)


def test_a_reload_that_waits_ends_when_the_server_stops(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        a, b = server.add("a", 1), server.add("b", 1)
        with pytest.raises(UnavailableError, match="starting"):
            await asyncio.to_thread(server.lifecycle.apply_from_thread, ServerConfig((a,)))
        await server.lifecycle.start(ServerConfig((a,)), timeout_s=10)
        server.platform.hold["b:1"] = threading.Event()
        reload = asyncio.create_task(asyncio.to_thread(server.lifecycle.apply_from_thread, ServerConfig((a, b))))
        await server.status("b", 1, VersionState.LOADING)
        await server.lifecycle.stop()
        with pytest.raises(UnavailableError, match="stopped"):
            await reload
        assert server.target.served() == {"a": [1]}

    _run(tmp_path, test)


def test_a_directory_that_goes_away_while_it_is_loaded(tmp_path: Path) -> None:
    async def test(server: _Server) -> None:
        a = server.add("a", 1)
        await server.lifecycle.start(ServerConfig((a,)), timeout_s=10)
        server.platform.hold["a:2"] = threading.Event()
        server.add("a", 2)
        await server.status("a", 2, VersionState.LOADING)
        shutil.rmtree(tmp_path / "a" / "2")
        server.platform.hold["a:2"].set()
        await server.status("a", 2, VersionState.END)
        assert server.target.served() == {"a": [1]}

    _run(tmp_path, test)
