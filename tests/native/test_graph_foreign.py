"""Graphs that a Python callable runs: checks, errors, the pool, and what the rest of the router sees of them."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2

from cpp_ext import _graph
from tessera.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)

pytestmark = pytest.mark.native

Array = np.ndarray[Any, Any]
SIGNATURES = {
    "serving_default": (
        {"x": ("float32", [-1, 2]), "word": ("string", [-1])},
        {"y": ("float32", [-1, 2]), "word": ("string", None)},
    )
}
X = np.array([[1, 2], [3, 4]], np.float32)
WORDS = np.array([b"a", b"\xff"], dtype=object)


def double(_: str, inputs: dict[str, Array], __: list[str]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2, "word": inputs["word"]}


def make(run: Callable[..., Mapping[str, Array]] = double, **options: Any) -> _graph.Graph:
    return _graph.Graph.foreign(SIGNATURES, run, name="m:1", **options)


def run(graph: _graph.Graph, **inputs: Any) -> dict[str, Array]:
    return graph.run("serving_default", {"x": X, "word": WORDS} | inputs, timeout_s=10)


def test_it_answers_with_what_the_callable_returns() -> None:
    seen: list[tuple[str, list[str]]] = []

    def noting(signature: str, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
        seen.append((signature, outputs))
        return double(signature, inputs, outputs)

    answer = run(make(noting))
    np.testing.assert_array_equal(answer["y"], X * 2)
    np.testing.assert_array_equal(answer["word"], WORDS)
    assert seen == [("serving_default", ["word", "y"])]


def test_its_metadata_are_those_of_any_model() -> None:
    graph = make()
    assert graph.signatures == {"serving_default": "async"}
    definitions = get_model_metadata_pb2.SignatureDefMap.FromString(graph.signature_defs)
    signature = MessageToDict(definitions.signature_def["serving_default"])
    assert signature["methodName"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["x"]["tensorShape"] == {"dim": [{"size": "-1"}, {"size": "2"}]}
    assert signature["outputs"]["word"]["tensorShape"] == {"unknownRank": True}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X.astype(np.float64)}, "input x has type double, expected float"),
        ({"x": np.zeros((1, 3), np.float32)}, r"input x has shape \[1,3\], expected \[\?,2\]"),
    ],
)
def test_inputs_are_checked_before_the_model_sees_them(inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(make(), **inputs)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"y": X}, "the model did not return output word"),
        ({"y": X.astype(np.int32), "word": WORDS}, "m:1: the model's output y has type int32, expected float"),
        ({"y": X[0], "word": WORDS}, r"m:1: the model's output y has shape \[2\], expected \[\?,2\]"),
        ({"y": X, "word": np.array([1, None], object)}, "the model's output word: element 0 is <class 'int'>"),
        (None, "the model returned <class 'NoneType'>, expected a dict"),
    ],
)
def test_what_the_model_returns_is_checked(answer: Any, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        run(make(lambda *_: answer))


def test_what_the_model_raises_is_the_requests_error() -> None:
    def raising(error: Exception) -> Callable[..., Any]:
        def raise_it(*_: Any) -> Any:
            raise error

        return raise_it

    with pytest.raises(NotFoundError, match=r"^no such user$"):
        run(make(raising(NotFoundError("no such user"))))
    with pytest.raises(InternalError, match="ValueError: oops"):
        run(make(raising(ValueError("oops"))))


def test_workers_bound_what_runs_at_once_and_the_rest_waits_or_is_refused() -> None:
    go, most, running, lock = threading.Event(), [0], [0], threading.Lock()

    def slow(*arguments: Any) -> dict[str, Array]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(10)
        with lock:
            running[0] -= 1
        return double(*arguments)

    graph = make(slow, workers=2, max_waiting=3)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(run, graph) for _ in range(8)]
        refused = [future for future in futures if _ends_soon(future)]
        go.set()
        answered = [future for future in futures if future.exception(10) is None]
    assert most == [2]
    assert len(answered) >= 3
    assert len(answered) + len(refused) == 8
    for future in refused:
        with pytest.raises(ResourceExhaustedError, match="m:1: too many requests wait for a worker"):
            future.result()


def _ends_soon(future: Any) -> bool:
    try:
        return future.exception(0.3) is not None
    except TimeoutError:
        return False


def test_a_request_whose_deadline_passes_while_it_waits_does_not_begin() -> None:
    go, begun = threading.Event(), []

    def slow(*arguments: Any) -> dict[str, Array]:
        begun.append(1)
        go.wait(10)
        return double(*arguments)

    graph = make(slow, workers=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, graph)
        while not begun:
            time.sleep(0.001)
        second = pool.submit(graph.run, "serving_default", {"x": X, "word": WORDS}, timeout_s=0.05)
        time.sleep(0.1)
        go.set()
        first.result(10)
        with pytest.raises(DeadlineExceededError):
            second.result(10)
    assert begun == [1]


def test_the_callable_goes_with_the_graph() -> None:
    class Model:
        def __call__(self, *arguments: Any) -> dict[str, Array]:
            return double(*arguments)

    model = Model()
    gone = weakref.ref(model)
    graph = make(model)
    run(graph)
    del model, graph
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("signatures", "options", "message"),
    [
        ({"s": ({"x": ("float33", None)}, {"y": ("float32", None)})}, {}, "s: input x: dtype float33"),
        (SIGNATURES, {"workers": 0}, "workers: got 0, expected 1 or more"),
        (SIGNATURES, {"max_waiting": 0}, "max_waiting: got 0, expected 1 or more"),
    ],
)
def test_a_wrong_description_is_refused(signatures: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        _graph.Graph.foreign(signatures, double, **options)
