"""Models that are Python code: the contract of docs/platforms.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.platforms import LoadOptions, find_platform
from router.platforms.python_model import PythonPlatform
from support.batch_calls import answer_all, good
from tessera.errors import FailedPreconditionError, InternalError, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

EXAMPLE = Path(__file__).parents[2] / "examples" / "python_model" / "1"
platform = PythonPlatform()
MODEL = """
import numpy as np

class Model:
    signatures = {"serving_default": {"inputs": {"x": ("float32", [None])}, "outputs": {"y": (np.float32, [None])}}}

    def predict(self, signature, inputs):
        x = inputs["x"]
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": x + OFFSET}

def load(directory):
    return Model()
"""


def write(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(text)
    return directory


def test_it_is_found_by_its_entry_point() -> None:
    assert isinstance(find_platform("m", "python"), PythonPlatform)


def test_the_example_works() -> None:
    assert platform.is_complete(EXAMPLE)
    assert platform.estimate(EXAMPLE).resident_bytes > 0
    graph = platform.load(EXAMPLE, LoadOptions(model="example"))
    words = np.array([b"a good day", b"bad, bad news", b"Tuesday"], dtype=object)
    answer = graph.run("serving_default", {"text": words})
    np.testing.assert_array_equal(answer["score"], np.array([1, -2, 0], np.float32))
    with pytest.raises(InvalidArgumentError, match="text: element 0 is not UTF-8"):
        graph.run("serving_default", {"text": np.array([b"\xff"], dtype=object)})
    assert not (EXAMPLE / "__pycache__").exists()


def test_two_versions_are_two_modules(tmp_path: Path) -> None:
    graphs = [
        platform.load(write(tmp_path / str(n), MODEL.replace("OFFSET", str(n))), LoadOptions(version=n)) for n in (1, 2)
    ]
    for number, graph in enumerate(graphs, 1):
        answer = graph.run("serving_default", {"x": np.zeros(2, np.float32)})
        np.testing.assert_array_equal(answer["y"], np.full(2, number, np.float32))


def test_requests_share_batches_and_a_bad_one_fails_alone(tmp_path: Path) -> None:
    graph = platform.load(write(tmp_path / "1", MODEL.replace("OFFSET", "1")), LoadOptions(request_batching=True))
    requests = [{"x": np.full(2, n, np.float32)} for n in (-1, 0, 1, 2, 3, 4, 5, 6)]
    bad, *fine = answer_all(graph, requests)
    assert isinstance(bad, InternalError)
    assert bad.message == "ValueError: negative"
    for request, answer in zip(requests[1:], fine, strict=True):
        np.testing.assert_array_equal(good(answer)["y"], request["x"] + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def load(directory):\n    raise OSError('disk')\n", "OSError: disk"),
        ("import nowhere_to_be_found\ndef load(directory): pass\n", "ModuleNotFoundError"),
        ("def load(directory): return 1\n", "load returned 1, expected an object with 'signatures'"),
        (MODEL.replace("def predict", "def other"), "expected an object with 'predict'"),
        (MODEL.replace('"outputs"', '"output"'), r"signatures\['serving_default'\]: got .*expected a dict with"),
        (MODEL.replace('("float32", [None])', '"float32"'), r"\['inputs'\]\['x'\]: got 'float32', expected \(dtype"),
        (MODEL.replace('"float32"', '"float33"'), r"\['inputs'\]\['x'\]: got \('float33'"),
        (MODEL.replace('{"y": (np.float32, [None])}', "{}"), r"\['outputs'\]: got none, expected one or more"),
        (MODEL.replace("signatures = {", "signatures = {} and {"), "signatures: got {}, expected a dict"),
    ],
)
def test_a_model_that_is_wrong_says_what(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FailedPreconditionError, match=rf"model\.py: .*{message}"):
        platform.load(write(tmp_path / "1", text), LoadOptions())


def test_a_file_that_is_cut_off_is_not_complete(tmp_path: Path) -> None:
    assert platform.is_complete(write(tmp_path / "1", MODEL))
    assert not platform.is_complete(write(tmp_path / "1", MODEL[: MODEL.index("def load")]))
    assert not platform.is_complete(write(tmp_path / "1", MODEL[: MODEL.index("raise ValueError") + 17]))
    assert not platform.is_complete(tmp_path / "2")
    with pytest.raises(NotFoundError, match=r"no model\.py in"):
        platform.load(tmp_path / "2", LoadOptions())
