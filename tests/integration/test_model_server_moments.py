"""Codes and texts of moments, through the server: while it starts, while a queue is full, after it was killed."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.model_server import ModelServer, model_server, wait_for
from support.serving_requests import Client, client, predict

pytestmark = pytest.mark.integration

WAIT_S = 120.0
PREDICT = "/v1/models/held:predict"
_MODEL = """
import pathlib, time

class Model:
    signatures = {{"serving_default": {{"inputs": {{"x": ("float32", [-1])}}, "outputs": {{"y": ("float32", [-1])}}}}}}

    def predict(self, signature, inputs):
        hold("predict")
        return {{"y": inputs["x"] * 2}}

def hold(what):
    directory = pathlib.Path({directory!r})
    (directory / f"{{what}}.begun").touch()
    while (directory / f"{{what}}.hold").exists():
        time.sleep(0.01)

def load(directory):
    hold("load")
    return Model()
"""


class Held:
    """A model that goes on with its load, or with a request, when it is told to."""

    def __init__(self, directory: Path) -> None:
        """Write its version 1 below `directory`."""
        self.directory = directory
        (directory / "model" / "1").mkdir(parents=True)
        (directory / "model" / "1" / "model.py").write_text(_MODEL.format(directory=str(directory)))
        (directory / "models.txt").write_text(
            f'model_config_list {{ config {{ name: "held" base_path: "{directory / "model"}" model_platform: "python" '
            'version_labels { key: "stable" value: 1 } } }'
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a server needs to serve it."""
        return (f"--model_config_file={self.directory / 'models.txt'}",)

    def hold(self, what: str) -> None:
        """Do not go on with "load" or "predict"."""
        (self.directory / f"{what}.begun").unlink(missing_ok=True)
        (self.directory / f"{what}.hold").touch()

    def wait_begun(self, what: str, server: ModelServer) -> None:
        """Wait until it has begun."""
        begun = self.directory / f"{what}.begun"
        wait_for(begun.exists, WAIT_S, lambda: server.process.poll() is None, lambda: server.stdout + server.stderr)

    def go_on(self, what: str) -> None:
        """Go on."""
        (self.directory / f"{what}.hold").unlink(missing_ok=True)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    model = Held(tmp_path / "held")
    yield model
    model.go_on("load")
    model.go_on("predict")


def _error(server: ModelServer, path: str) -> tuple[int, str]:
    code, text, _ = server.http("POST", path, {"instances": [1.0]}, timeout_s=WAIT_S)
    return code, json.loads(text)["error"]


def _fails(ask: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value.code().name, caught.value.details() or ""


def test_while_the_models_of_the_start_load(held: Held, tmp_path: Path) -> None:
    held.hold("load")
    with model_server(tmp_path / "server", *held.arguments, wait=False) as server:
        held.wait_begun("load", server)
        labelled = "/v1/models/held/labels/other:predict"
        assert _error(server, labelled) == (503, "Model labels does not init yet.other")
        assert _error(server, "/v1/models/held/labels/stable:predict") == (
            404,
            "Servable not found for request: Specific(held, 1)",
        )
        assert server.http("GET", "/readyz")[0] == 503
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", server.port)) != 0
        held.go_on("load")
        server.wait_ready(WAIT_S)
        assert _error(server, labelled) == (400, "Unrecognized servable version label: other")
        with client(server.address) as calls:
            assert calls.call("Predict", predict("held", {"x": [3.0]}, label="stable")).outputs["y"].float_val == [6.0]


def test_a_model_without_versions_can_be_mended_by_a_change_of_the_configuration(held: Held, tmp_path: Path) -> None:
    config = held.directory / "models.txt"
    right = config.read_text()
    config.write_text(right.replace('/model"', '/nothing"'))
    arguments = (*held.arguments, "--model_config_file_poll_wait_seconds=1")
    with model_server(tmp_path / "server", *arguments, wait=False) as server, client(server.address) as calls:
        wait_for(lambda: _is_open(server), WAIT_S, tell=lambda: server.stderr)
        code, text = _fails(lambda: calls.call("Predict", predict("held", {"x": [3.0]})))
        assert (code, text) == ("NOT_FOUND", "Servable not found for request: Latest(held)")
        status, body, _ = server.http("GET", "/readyz")
        assert status == 503
        assert f"{held.directory / 'nothing'} was not read yet" in body
        config.write_text(right)
        server.wait_ready(WAIT_S)
        assert calls.call("Predict", predict("held", {"x": [3.0]})).outputs["y"].float_val == [6.0]


def _is_open(server: ModelServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


@contextlib.contextmanager
def _one_at_a_time(held: Held, directory: Path, *more: str) -> Iterator[tuple[ModelServer, Client]]:
    """A server that runs one request of one row at once, and lets one wait."""
    directory.mkdir()
    (directory / "batching.txt").write_text(
        "max_batch_size { value: 1 } num_batch_threads { value: 1 } max_enqueued_batches { value: 1 }"
    )
    batching = ("--enable_batching", f"--batching_parameters_file={directory / 'batching.txt'}")
    with (
        model_server(directory / "server", *held.arguments, *batching, *more) as server,
        client(server.address) as calls,
        ThreadPoolExecutor(2) as pool,
    ):
        held.hold("predict")
        try:
            running = pool.submit(calls.prediction.Predict, predict("held", {"x": [1.0]}), timeout=WAIT_S)
            held.wait_begun("predict", server)
            yield server, calls
        finally:
            held.go_on("predict")
        assert running.result(WAIT_S).outputs["y"].float_val == [2.0]


def test_a_request_that_waits_too_long_in_the_queue(held: Held, tmp_path: Path) -> None:
    text = "Run() timeout exceeded while waiting in batching queue"
    limits = ("--default_deadline_s=0.3", "--rest_api_timeout_in_ms=300")
    with _one_at_a_time(held, tmp_path / "late", *limits) as (server, calls):
        # Without a deadline of the client's, which it would end by itself.
        assert _fails(lambda: calls.prediction.Predict(predict("held", {"x": [2.0]}))) == ("RESOURCE_EXHAUSTED", text)
        # Over REST, which of the two limits is seen first is not fixed.
        assert _error(server, PREDICT) in ((429, text), (504, "Timed out waiting for notification"))


def test_a_full_queue(held: Held, tmp_path: Path) -> None:
    text = "The batch scheduling queue to which this task was submitted is full; "
    with _one_at_a_time(held, tmp_path / "full") as (server, calls), ThreadPoolExecutor(16) as pool:
        request = predict("held", {"x": [1.0]})
        futures = [pool.submit(calls.prediction.Predict, request, timeout=WAIT_S) for _ in range(16)]
        try:
            wait_for(lambda: any(one.done() for one in futures), WAIT_S / 2)  # some wait, the others are refused
            refused = [_fails(one.result) for one in futures if one.done()]
            code, said = _error(server, PREDICT)
        finally:
            held.go_on("predict")
        assert all(name == "UNAVAILABLE" and details.startswith(text) for name, details in refused), refused
        assert (code, said[: len(text)]) == (503, text)


def test_kill_minus_nine_in_the_middle_of_a_load_leaves_nothing_that_hinders_the_next(
    held: Held, tmp_path: Path
) -> None:
    arguments = (*held.arguments, f"--grpc_socket_path={tmp_path / 'socket'}", "--start_timeout_s=0.1")
    held.hold("load")
    with model_server(tmp_path / "first", *arguments, wait=False) as server:
        held.wait_begun("load", server)
        wait_for((tmp_path / "socket").exists, WAIT_S, tell=lambda: server.stderr)  # it has opened without the model
        server.process.kill()
        server.process.wait(WAIT_S)
    assert (tmp_path / "socket").exists()
    held.go_on("load")
    with (
        model_server(tmp_path / "second", *arguments) as server,
        client(server.address) as over_tcp,
        client(f"unix:{tmp_path / 'socket'}") as over_socket,
    ):
        for calls in (over_tcp, over_socket):
            assert calls.call("Predict", predict("held", {"x": [3.0]})).outputs["y"].float_val == [6.0]
        assert server.stop() == 0
