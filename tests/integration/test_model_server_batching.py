"""`tensorflow_model_server --enable_batching`: answers stay the same, and what cannot be batched says so."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.model_server import ModelServer, model_server
from support.serving_requests import Client, client, examples, predict, regress

pytestmark = pytest.mark.integration

PARAMETERS = """
    max_batch_size { value: 4 }  batch_timeout_micros { value: 1000 }  max_enqueued_batches { value: 100 }
    num_batch_threads { value: 1 }  allowed_batch_sizes: [2, 4]
"""


@pytest.fixture(scope="module")
def server(half_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    directory = tmp_path_factory.mktemp("batching")
    (directory / "batching.txt").write_text(PARAMETERS)
    arguments = (
        "--model_name=half",
        f"--model_base_path={half_models / 'half_plus_two'}",
        "--enable_batching",
        f"--batching_parameters_file={directory / 'batching.txt'}",
    )
    with model_server(directory, *arguments) as found:
        yield found


@pytest.fixture(scope="module")
def calls(server: ModelServer) -> Iterator[Client]:
    with client(server.address) as found:
        yield found


def test_many_callers_get_their_own_answers(calls: Client) -> None:
    def ask(number: int) -> list[float]:
        return list(calls.call("Predict", predict(inputs={"x": [[float(number)]]})).outputs["y"].float_val)

    with ThreadPoolExecutor(16) as callers:
        assert list(callers.map(ask, range(200))) == [[number * 0.5 + 2.0] for number in range(200)]


def test_regress_is_batched_too(calls: Client) -> None:
    answer = calls.call("Regress", regress(given=examples(2.0, 4.0, 6.0)))
    assert [one.value for one in answer.result.regressions] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("request_message", "text"),
    [
        (predict(inputs={"x": [[1.0]] * 5}), "Task size 5 is larger than maximum input batch size 4"),
        (
            predict(inputs={"x": [[1.0]], "z": [[1.0], [2.0]]}, signature="two_inputs"),
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
    ],
)
def test_what_cannot_be_batched(calls: Client, request_message: Any, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls.call("Predict", request_message)
    assert (caught.value.code().name, caught.value.details()) == ("INVALID_ARGUMENT", text)


def test_over_rest(server: ModelServer) -> None:
    code, text, _ = server.http("POST", "/v1/models/half:predict", {"instances": [[1.0]] * 5})
    assert (code, json.loads(text)) == (400, {"error": "Task size 5 is larger than maximum input batch size 4"})
    code, text, _ = server.http("POST", "/v1/models/half:predict", {"instances": [[2.0], [4.0]]})
    assert (code, json.loads(text)) == (200, {"predictions": [[3.0], [4.0]]})
