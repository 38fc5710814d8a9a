"""A router with a batched model as an operator sees it: policies that change while it serves, metrics, status."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from admin.processes import ChildGroup, fast_allocator, wait_until
from admin.serving_client import open_channel
from protos import router_pb2
from support.batched_model import REGION, WIDTH, save_batched_model
from support.command_line import TIMEOUT_S, refused, tessera
from support.serving import FLOAT32, Load, predict, predict_request
from tessera.errors import UnavailableError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_run_dir")]

_MODEL = "dense_model"
_OUTPUTS = {"y": [[2.0] * WIDTH]}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_batched_model(tmp_path_factory.mktemp("batched") / "3").parent


class _Router:
    """A router process with the batched model."""

    def __init__(self, directory: Path, saved_model: Path, *flags: str) -> None:
        self.children = ChildGroup(directory / "logs")
        ready = directory / "ready"
        command = [sys.executable, "-m", "router", "--listen=127.0.0.1:0", f"--saved-model={_MODEL}={saved_model}"]
        self.child = self.children.start(
            "router", [*command, f"--ready-file={ready}", "--pollers=1", *flags], environ=fast_allocator()
        )
        wait_until("the router listens", ready.exists, (self.child,), TIMEOUT_S)
        content = json.loads(ready.read_text())
        self.address, self.metrics_address = content["address"], content["metrics"]

    def log(self) -> str:
        return self.child.log_path.read_text()

    def wait_for_log(self, text: str) -> None:
        wait_until(f"the log says {text!r}", lambda: text in self.log(), (self.child,), 10.0)

    def status(self) -> dict[str, Any]:
        done = tessera("status", f"--router={self.address}", "-o", "json")
        assert done.returncode == 0, done.stderr
        (router,) = json.loads(done.stdout)["routers"]
        assert isinstance(router["status"], dict)
        return router["status"]

    def region(self) -> dict[str, Any]:
        (region,) = self.status()["regions"]
        return dict(region)

    def metrics(self) -> dict[str, float]:
        """Return the samples of the batched region by name, without those of histograms, and those without labels."""
        with urllib.request.urlopen(
            f"http://{self.metrics_address}/monitoring/prometheus/metrics", timeout=10
        ) as response:
            text = response.read().decode()
        labels = {"model_name": _MODEL, "version": "3", "op_name": REGION}
        families = text_string_to_metric_families(text)
        return {s.name: s.value for family in families for s in family.samples if s.labels in (labels, {})}


@pytest.fixture
def start_router(tmp_path: Path, saved_model: Path) -> Iterator[Callable[..., _Router]]:
    with contextlib.ExitStack() as stack:

        def start(*flags: str) -> _Router:
            router = _Router(tmp_path, saved_model, *flags)
            stack.callback(router.children.stop)
            return router

        yield start


def _write(path: Path, size: int) -> Path:
    """Write a policy file under which every batch has `size` rows, with padding."""
    path.write_text(f"[default]\nmax_batch_size = {size}\nallowed_batch_sizes = [{size}]\n")
    return path


def _predict(router: _Router, times: int = 1) -> None:
    request = predict_request(_MODEL, {"x": ([[1.0] * WIDTH], FLOAT32)})
    with open_channel(router.address) as channel:
        for _ in range(times):
            assert predict(channel, request) == (_OUTPUTS, 3)


def test_a_policy_file_that_changes_is_followed_without_a_restart(
    start_router: Callable[..., _Router], tmp_path: Path
) -> None:
    path = _write(tmp_path / "policy.toml", 4)
    router = start_router(f"--batching-policy-file={path}")
    request = predict_request(_MODEL, {"x": ([[1.0] * WIDTH], FLOAT32)})
    with Load(router.address, request, _OUTPUTS, threads=2) as load:
        assert router.region()["policy"]["allowed_batch_sizes"] == [4]
        _write(path, 8)
        router.wait_for_log(f"model {_MODEL} region {REGION}: max_batch_size 4 → 8, allowed_batch_sizes")
        load.wait_for_answers(20)
        path.write_text("[default]\nmax_batch_size = 0\n")
        router.wait_for_log("the policies stay as they were")
        assert router.region()["policy"]["max_batch_size"] == 8
        _write(path, 16)
        router.child.process.send_signal(signal.SIGHUP)
        router.wait_for_log("max_batch_size 8 → 16")
        load.wait_for_answers(20)
    assert load.failures == []
    assert set(router.region()["stats"]["batch_sizes"]) == {"4", "8", "16"}
    assert router.child.process.poll() is None


def test_sighup_without_a_policy_file_ends_nothing(start_router: Callable[..., _Router]) -> None:
    router = start_router()
    router.child.process.send_signal(signal.SIGHUP)
    router.wait_for_log("nothing to read again without a policy file")
    _predict(router)


def test_metrics_and_status_count_the_same(start_router: Callable[..., _Router], tmp_path: Path) -> None:
    router = start_router(f"--batching-policy-file={_write(tmp_path / 'policy.toml', 4)}", "--metrics-port=0")
    _predict(router, times=10)
    region, metrics = router.region(), router.metrics()
    assert (region["model"], region["version"], region["region"]) == (_MODEL, 3, REGION)
    assert (region["signatures"], region["is_in_loop"], region["refused"]) == (["serving_default"], False, "")
    stats, summary = region["stats"], region["summary"]
    assert (stats["tasks"], stats["rows"], stats["padding_rows"]) == (10, 10, 30)
    assert stats["batch_sizes"] == {"4": 10}
    assert (summary["mean_rows"], summary["p50_rows"], summary["padding_fraction"]) == (1.0, 4, 0.75)
    assert (summary["rejected"], summary["dropped"]) == (0, 0)
    assert summary["p50_queue_delay_micros"] <= summary["p99_queue_delay_micros"] < 1e6
    for name in ("tasks", "rows", "padding_rows", "inline_batches", "cancelled"):
        assert metrics[f"tessera_batch_{name}_total"] == stats[name]
    assert metrics[":tensorflow:serving:batching:processed_batch_size_count"] == stats["batches"]
    assert metrics[":tensorflow:serving:batching:processed_batch_size_sum"] == 40
    assert metrics[":tensorflow:serving:batching:batch_delay_us_count"] == stats["queue_delay_micros"]["count"] == 10
    assert metrics[":tensorflow:serving:batching:max_batch_size"] == 4
    assert metrics["tessera_predict_in_flight"] == 0
    (lane,) = router.status()["lanes"]
    assert 0 < lane["busy_fraction"] < 1
    assert router.status()["requests"] == 10


def test_the_native_counters_are_the_ones_of_the_message(saved_model: Path) -> None:
    from cpp_ext import _graph

    graph = _graph.Graph.load(str(saved_model / "3"), name=f"{_MODEL}:3")
    stats = graph.batching_stats()[REGION]
    assert stats.keys() == {field.name for field in router_pb2.RegionStats.DESCRIPTOR.fields}
    for name in ("queue_delay_micros", "execution_micros"):
        assert stats[name].keys() == {field.name for field in router_pb2.PowerHistogram.DESCRIPTOR.fields}
    lane = _graph.batch_lanes()["cpu:0"]
    assert lane.keys() | {"name"} == {field.name for field in router_pb2.Lane.DESCRIPTOR.fields}
    assert graph.batch_regions[REGION].keys() == {"signatures", "in_loop", "refused"}


def test_a_status_of_a_window_counts_what_happens_in_it(start_router: Callable[..., _Router]) -> None:
    router = start_router()
    _predict(router, times=5)
    done = tessera("status", f"--router={router.address}", "--window-s=0.5", "-o", "json")
    (answer,) = json.loads(done.stdout)["routers"]
    assert (answer["status"]["requests"], answer["status"]["regions"][0]["stats"]["batches"]) == (0, 0)
    assert 0.4 < answer["status"]["uptime_s"] < 10
    text = tessera("status", f"--router={router.address}").stdout
    assert [line.split()[:4] for line in text.splitlines()[-1:]] == [[router.address, _MODEL, "3", REGION]]


def test_batching_can_be_switched_off(start_router: Callable[..., _Router]) -> None:
    router = start_router("--enable-batching=false")
    _predict(router)
    assert router.status()["regions"] == []


def test_a_router_that_does_not_answer_costs_two_seconds() -> None:
    refused(1, "router 127.0.0.1:1: UNAVAILABLE", "status", "--router=127.0.0.1:1")
    begin = time.monotonic()
    refused(1, "router 192.0.2.1:8500: ", "status", "--router=192.0.2.1:8500")  # an address for documentation: silence
    assert time.monotonic() - begin < 6


@pytest.mark.parametrize(
    ("content", "says"),
    [("[default]\nmax_batch_size = 0\n", "max_batch_size"), ("[default", "policy.toml"), (None, "No such file")],
)
def test_a_wrong_policy_file_is_a_wrong_setting(
    tmp_path: Path, saved_model: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "router", f"--saved-model=m={saved_model}", f"--batching-policy-file={path}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "--batching-policy-file" in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_metrics_port_in_use_is_named(tmp_path: Path, saved_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}: Address"):
            _Router(tmp_path, saved_model, f"--metrics-port={port}")


def test_the_parameters_file_of_tensorflow_serving(start_router: Callable[..., _Router], tmp_path: Path) -> None:
    path = tmp_path / "batching.config"
    path.write_text(
        'max_batch_size { value: 32 }\nbatch_timeout_micros { value: 0 }\nthread_pool_name { value: "pool" }\n'
    )
    router = start_router(f"--batching-parameters-file={path}")
    policy = router.region()["policy"]
    assert (policy["max_batch_size"], policy["batch_timeout_micros"]) == (32, 0)
    assert "thread_pool_name: has no meaning here" in router.log()
