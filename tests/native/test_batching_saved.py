"""Models with the pair, saved and loaded in a process of their own, by plain TensorFlow and by the native core."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import batching
from cpp_ext import _graph

X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
SEQUENCES = np.random.default_rng(2).normal(size=(5, 7, 3)).astype(np.float32)


class BatchedDense(tf.keras.layers.Layer):  # type: ignore[misc]
    def build(self, shape: Any) -> None:
        self.dense = tf.keras.layers.Dense(2)
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        inside, token = batching.batch(x)
        return batching.unbatch(self.dense(inside), token)


class BatchedCell(tf.keras.layers.LSTMCell):  # type: ignore[misc]
    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        (x, *inside), token = batching.batch((inputs, *states))
        return batching.unbatch(super().call(x, inside, training), token)


class Subclassed(tf.keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = BatchedDense(name="region")

    def call(self, x: Any) -> Any:
        return self.layer(x)


def functional(layer: Any, *shape: int | None) -> Any:
    x = tf.keras.Input(shape)
    return tf.keras.Model(x, layer(x))


def export(model: Any, x: Any, folder: Path) -> Any:
    answer = model.predict(x, verbose=0)
    model.export(str(folder), verbose=False)
    return answer


def save_module(folder: Path) -> Any:
    module = tf.Module()
    module.weight = tf.Variable(np.ones((3, 2), np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])  # type: ignore[untyped-decorator]
    def serve(x: Any) -> Any:
        inside, token = batching.batch(x)
        return {"y": batching.unbatch(inside @ module.weight, token)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return X @ np.ones((3, 2), np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Any, Any]]]:
    """Return a folder with models, and name → (input, what the model answers)."""
    folder = tmp_path_factory.mktemp("models")
    lstm = tf.keras.layers.RNN(BatchedCell(2, name="cell"), name="lstm")
    answers = {
        "functional": (X, export(functional(BatchedDense(name="region"), 3), X, folder / "functional")),
        "subclassed": (X, export(Subclassed(), X, folder / "subclassed")),
        "lstm": (SEQUENCES, export(functional(lstm, None, 3), SEQUENCES, folder / "lstm")),
        "module": (X, save_module(folder / "module")),
    }
    for name, (x, _) in answers.items():
        np.save(folder / f"{name}_x.npy", x)
    return folder, answers


LOAD = """
import sys
import numpy as np, tensorflow as tf, batching
batching.load_op_library()
for name in sys.argv[2:]:
    loaded = tf.saved_model.load(f"{sys.argv[1]}/{name}")
    x = tf.constant(np.load(f"{sys.argv[1]}/{name}_x.npy"))
    np.save(f"{sys.argv[1]}/{name}_y.npy", next(iter(loaded.signatures["serving_default"](x).values())))
"""


def run(code: str, folder: Path, *names: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), *names], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_saved_models_give_the_same_answers_in_a_new_process(saved: tuple[Path, dict[str, tuple[Any, Any]]]) -> None:
    folder, answers = saved
    run(LOAD, folder, *answers)
    for name, (_, answer) in answers.items():
        np.testing.assert_allclose(np.load(folder / f"{name}_y.npy"), answer, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("first", ["from cpp_ext import _graph", "import batching.ops"])
def test_the_library_may_be_loaded_before(saved: tuple[Path, dict[str, tuple[Any, Any]]], first: str) -> None:
    folder, answers = saved
    more = "from cpp_ext import _graph\ntf.function(batching.batched(lambda x: x + 1))(tf.ones([2, 2]))\n"
    run(first + LOAD + more, folder, "module")
    np.testing.assert_array_equal(np.load(folder / "module_y.npy"), answers["module"][1])


@pytest.mark.parametrize(
    ("name", "region", "in_loop"),
    [
        ("functional", "region", False),
        ("subclassed", "region", False),
        ("lstm", "lstm", True),
        ("module", "serve/batch", False),
    ],
)
def test_the_native_core_finds_the_regions(
    saved: tuple[Path, dict[str, tuple[Any, Any]]], name: str, region: str, in_loop: bool
) -> None:
    folder, answers = saved
    graph = _graph.Graph.load(str(folder / name))
    ((found, what),) = graph.batch_regions.items()
    assert region in found
    assert found.endswith("/batch")
    assert what["refused"] == ""
    assert what["in_loop"] is in_loop
    assert "serving_default" in what["signatures"]
    x, answer = answers[name]
    inputs = dict.fromkeys(_inputs(folder / name), x)
    (result,) = graph.run("serving_default", inputs).values()
    np.testing.assert_allclose(result, answer, rtol=1e-5, atol=1e-6)
    assert graph.batching_stats()[found]["tasks"] == (7 if in_loop else 1)


def _inputs(folder: Path) -> list[str]:
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return list(signature.structured_input_signature[1])
