"""The lifecycle with real models and the native core: what is served, what a damaged model does, what is freed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from cpp_ext import _graph
from protos import prediction_log_pb2, serving_pb2
from router.batch_policies import BatchPolicies
from router.catalog import VersionState, VersionStatus
from router.lifecycle.actions import Limits
from router.lifecycle.config import All, ModelConfig, ServerConfig
from router.lifecycle.loader import LOADER_NICE, Loader
from router.lifecycle.manager import LOAD_ATTEMPTS, LOAD_FAILURES, Lifecycle
from router.lifecycle.warm_up import FILE
from router.models import Models
from router.plain_models import make_lifecycle
from router.platforms.base import LoadOptions
from router.platforms.registry import platforms
from router.settings import RouterSettings
from router.tfrecord import frame
from support.small_models import half_plus
from tessera.clock import SystemClock
from tessera.errors import Code, NotFoundError, TesseraError

pytestmark = pytest.mark.native


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 3 of a model: y = x / 2 + version."""
    base = tmp_path_factory.mktemp("versions")
    for version in (1, 2, 3):
        half_plus(base / str(version), float(version))
    return base


class _Server:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.predictor = _graph.Predictor()
        self.models = Models(None, cast(Any, None), self.predictor, BatchPolicies(_graph.BatchPolicy))
        flags = RouterSettings(saved_model=("m=/unused",), model_poll_s=0.05, load_retries=0)
        self.lifecycle: Lifecycle = make_lifecycle(flags, self.models)

    def config(self, **fields: Any) -> ServerConfig:
        return ServerConfig((ModelConfig("m", self.base, **fields),))

    def predict(self, version: int | None = None) -> float:
        request = serving_pb2.PredictRequest()
        request.model_spec.name = "m"
        if version is not None:
            request.model_spec.version.value = version
        request.inputs["x"].CopyFrom(
            serving_pb2.Tensor(dtype=1, float_val=[4.0], tensor_shape=serving_pb2.TensorShape(dim=[{"size": 1}]))
        )
        answer = self.predictor.call("Predict", request.SerializeToString(), timeout_s=10)
        return serving_pb2.PredictResponse.FromString(answer).outputs["y"].float_val[0]

    async def status(self, version: int, state: VersionState) -> VersionStatus:
        async with asyncio.timeout(20):
            while True:
                status = self.models.catalog.models.get("m", {}).get(version)
                if status is not None and status.state == state:
                    return status
                await asyncio.sleep(0.02)


def _run(base: Path, test: Callable[[_Server], Awaitable[None]]) -> None:
    async def main() -> None:
        server = _Server(base)
        try:
            async with asyncio.timeout(60):
                await test(server)
        finally:
            await server.lifecycle.stop()

    asyncio.run(main())


def test_versions_come_and_go(tmp_path: Path, versions: Path) -> None:
    async def test(server: _Server) -> None:
        shutil.copytree(versions / "1", tmp_path / "1")
        await server.lifecycle.start(server.config(), timeout_s=30)
        assert server.predict() == 3.0
        shutil.copytree(versions / "2", tmp_path / "2")
        await server.status(1, VersionState.END)
        assert server.predict() == 4.0
        with pytest.raises(NotFoundError, match=r"Specific\(m, 1\)"):
            server.predict(1)
        await server.lifecycle.apply(server.config(versions=All(), labels={"stable": 2}))
        await server.status(1, VersionState.AVAILABLE)
        assert (server.predict(1), server.predict()) == (3.0, 4.0)
        assert server.models.catalog.labels["m"] == {"stable": 2}
        await server.lifecycle.apply(ServerConfig())
        with pytest.raises(NotFoundError, match=r"Latest\(m\)"):
            server.predict()
        await server.status(2, VersionState.END)

    _run(tmp_path, test)


def _damage(path: Path, kind: str) -> None:
    if kind == "graph":
        (path / "saved_model.pb").write_bytes(b"\xff no model")
    elif kind == "variables":
        data = next((path / "variables").glob("variables.data*"))
        data.write_bytes(data.read_bytes()[:-2])
    elif kind == "index":
        index = path / "variables" / "variables.index"
        index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])
    else:
        (path / "saved_model.pb").unlink()


@pytest.mark.parametrize("kind", ["graph", "variables", "index", "nothing"])
def test_a_damaged_version_does_not_serve_and_is_told_of(
    tmp_path: Path, versions: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.lifecycle.disk.INCOMPLETE_S", 1.0)

    async def test(server: _Server) -> None:
        shutil.copytree(versions / "1", tmp_path / "1")
        await server.lifecycle.start(server.config(), timeout_s=30)
        shutil.copytree(versions / "2", tmp_path / "new")
        _damage(tmp_path / "new", kind)
        (tmp_path / "new").rename(tmp_path / "2")
        status = await server.status(2, VersionState.END)
        assert status.error_code != Code.OK
        assert status.error_message
        assert "://" not in status.error_message  # of how it is read
        assert server.predict() == 3.0
        assert server.lifecycle.ready() == (True, [])
        shutil.rmtree(tmp_path / "2")
        shutil.copytree(versions / "2", tmp_path / "2")
        await server.status(2, VersionState.AVAILABLE)
        assert server.predict() == 4.0

    _run(tmp_path, test)


def test_a_version_that_appears_in_pieces_is_loaded_once_it_is_whole(tmp_path: Path, versions: Path) -> None:
    async def test(server: _Server) -> None:
        shutil.copytree(versions / "1", tmp_path / "1")
        await server.lifecycle.start(server.config(), timeout_s=30)
        files = sorted(path.relative_to(versions / "2") for path in (versions / "2").rglob("*") if path.is_file())
        for file in files:
            target = tmp_path / "2" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            content = (versions / "2" / file).read_bytes()
            target.write_bytes(content[: len(content) // 2])
            await asyncio.sleep(0.2)
            target.write_bytes(content)
        await server.status(2, VersionState.AVAILABLE)
        assert server.predict() == 4.0
        assert server.lifecycle.counters[LOAD_FAILURES] == 0

    _run(tmp_path, test)


@pytest.mark.parametrize("good", [True, False])
def test_warm_up_requests_are_answered_by_the_new_version(tmp_path: Path, versions: Path, good: bool) -> None:
    request = serving_pb2.PredictRequest()
    request.model_spec.name = "logged_elsewhere"
    request.inputs["x" if good else "z"].CopyFrom(
        serving_pb2.Tensor(dtype=1, float_val=[4.0], tensor_shape=serving_pb2.TensorShape(dim=[{"size": 1}]))
    )
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.Call(request=request.SerializeToString()))

    async def test(server: _Server) -> None:
        shutil.copytree(versions / "1", tmp_path / "1")
        (tmp_path / "1" / FILE).parent.mkdir()
        (tmp_path / "1" / FILE).write_bytes(frame(log.SerializeToString()))
        if good:
            await server.lifecycle.start(server.config(), timeout_s=30)
            assert server.predict() == 3.0
        else:
            with pytest.raises(TesseraError, match=r"INVALID_ARGUMENT: warm-up request 1 of .* alias: x"):
                await server.lifecycle.start(server.config(), timeout_s=30)
            await asyncio.sleep(0.3)
            assert server.lifecycle.counters[LOAD_ATTEMPTS] == 1
            assert server.predictor.stats()["models"] == {}

    _run(tmp_path, test)


def test_a_graph_is_watched_until_it_is_freed(versions: Path) -> None:
    graph = _graph.Graph.load(str(versions / "1"))
    watch = graph.watch()
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    del graph
    assert not watch.wait(0.1)
    assert not watch.freed
    predictor.publish({})
    assert watch.wait(10)
    assert watch.freed


def test_loading_has_a_low_priority_and_threads_that_serve_keep_theirs(versions: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRIORITIES, str(versions / "1")],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert json.loads(done.stdout) == {"loader": LOADER_NICE, "others": [os.getpriority(os.PRIO_PROCESS, 0)]}


_PRIORITIES = """
# A graph_runner folds constants while a graph is made; it never serves.
import json, os, sys, threading
from pathlib import Path
from cpp_ext import _graph
from router.lifecycle.loader import lower_priority

_graph.configure()
found = {}

def load():
    lower_priority()
    _graph.Graph.load(sys.argv[1])
    own = threading.get_native_id()
    tasks = [task for task in Path("/proc/self/task").iterdir() if "graph_runner" not in (task / "comm").read_text()]
    priorities = {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks}
    found.update(loader=priorities.pop(own), others=sorted(set(priorities.values())))

thread = threading.Thread(target=load)
thread.start()
thread.join()
print(json.dumps(found))
"""


def test_memory_is_admitted_before_a_load(tmp_path: Path, versions: Path) -> None:
    async def test(server: _Server) -> None:
        shutil.copytree(versions / "1", tmp_path / "1")
        lifecycle = Lifecycle(
            Limits(memory_bytes=10, max_retries=0), Loader(platforms(), LoadOptions()), server.models, SystemClock()
        )
        try:
            with pytest.raises(TesseraError) as caught:
                await lifecycle.start(server.config(), timeout_s=20)
            assert caught.value.message == (
                "1 servable(s) did not become available: {{name: m version: 1} due to error: RESOURCE_EXHAUSTED: "
                "Insufficient resources to load servable {name: m version: 1}}, }"
            )
        finally:
            await lifecycle.stop()

    _run(tmp_path, test)
