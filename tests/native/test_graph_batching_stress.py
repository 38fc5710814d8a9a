"""Everything at once for a few seconds: models, regions, loops, bad rows, deadlines, policies, loads and unloads."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cpp_ext import _graph
from support.batch_calls import Array, answer, load, pair, save, spec
from support.small_models import i32
from tessera.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError, UnavailableError

pytestmark = pytest.mark.native

SECONDS = 6.0
THREADS = 12
WIDTH = 16
BATCH = 64  # the size before the first policy too
REFUSED = (DeadlineExceededError, UnavailableError, ResourceExhaustedError)


def checked(x: Any) -> Any:
    return tf.debugging.check_numerics(x, "bad row")


def two_regions(x: Any) -> Any:
    (y,) = pair([x], "first", lambda x: checked(x) * 2.0)
    a, b = pair([y, x], "second", lambda y, x: (y + x, x - 1.0))
    return {"a": a, "b": b}


def padded(x: Any) -> Any:
    pad = {"pad_dims": [1], "pad_values": [tf.make_tensor_proto(-9.0)], "length_buckets": [4, 16]}
    (y,) = pair([x], "padded", lambda x: checked(x) * 3.0, pad=pad, trim={"trim_dims": [1], "trim_inputs": [0]})
    return {"a": y}


def words(text: Any) -> Any:
    (y,) = pair([text], "words", tf.strings.upper)
    return {"a": y}


def loop(x: Any, steps: Any) -> Any:
    def body(i: Any, x: Any) -> Any:
        return i + 1, pair([x], "cell", lambda x: checked(x) + 1.0)[0]

    return {"a": tf.while_loop(lambda i, _: i < steps[0], body, [0, x])[1]}


class Model:
    """A model that is loaded again and again, and what it has to answer."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.graph = load(path)

    def request(self, random: np.random.Generator) -> tuple[dict[str, Array], dict[str, Array], bool]:
        """Return inputs, outputs, and whether a row is bad."""
        rows = int(random.choice([0, 1, 1, 1, 2, 5, 33, 200]))
        if self.name == "words":
            text = np.array([b"w%d\0" % random.integers(1000) * int(random.integers(9)) for _ in range(rows)], object)
            return {"text": text}, {"a": np.array([word.upper() for word in text], object)}, False
        length = int(random.integers(0, 20)) if self.name == "padded" else WIDTH
        x = random.integers(-1000, 1000, size=(rows, length)).astype(np.float32)
        bad = x.size > 0 and random.random() < 0.05
        if bad:
            x[random.integers(rows), random.integers(length)] = np.nan
        if self.name == "loop":
            steps = int(random.integers(1, 12))
            return {"x": x, "steps": i32([steps])}, {"a": x + steps}, bad
        return {"x": x}, {"a": x * 3, "b": x - 1} if self.name == "two" else {"a": x * 3}, bad


def policy(random: np.random.Generator) -> _graph.BatchPolicy:
    return _graph.BatchPolicy(
        max_batch_size=BATCH,
        allowed_batch_sizes=[[], [4, BATCH], [BATCH]][random.integers(3)],
        batch_timeout_micros=int(random.choice([0, 0, 100, 2000])),
        max_enqueued_rows=int(random.choice([8, 4096])),
        max_enqueued_bytes=int(random.choice([4096, 1 << 28])),
        max_in_flight_batches=int(random.integers(3)),
        priority=int(random.integers(2)),
        weight=float(random.choice([0.1, 1.0, 10.0])),
        padding=["pad_up", "batch_down", "min_cost"][random.integers(3)],
    )


def threads_of_this_process() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            names.append((task / "comm").read_text().strip())
    return names


def call_until(end: float, models: list[Model], seed: int, problems: list[str], answered: list[int]) -> None:
    random = np.random.default_rng(seed)
    while time.monotonic() < end and not problems:
        model = models[random.integers(len(models))]
        inputs, expected, bad = model.request(random)
        got = answer(model.graph, inputs, timeout_s=float(random.choice([0.0003, 0.003, 30.0, 30.0])))
        if isinstance(got, dict):
            right = not bad and all(
                got[name].shape == rows.shape and np.array_equal(got[name], rows) for name, rows in expected.items()
            )
            answered[seed] += 1
        else:
            right = isinstance(got, REFUSED) or (bad and isinstance(got, InvalidArgumentError))
        if not right:
            problems.append(f"{model.name}: {inputs} gave {got!r}, expected {expected}, bad {bad}")


def change_until(end: float, models: list[Model], problems: list[str]) -> int:
    """Change policies, and put another load of a model in the place of one; return how often."""
    random = np.random.default_rng(99)
    changes = 0
    while time.monotonic() < end and not problems:
        model = models[random.integers(len(models))]
        if changes % 10 == 9:
            model.graph = load(model.path)  # the one before goes with its last request
        graph = model.graph
        graph.set_batching({region: policy(random) for region in graph.batch_regions})
        changes += 1
        time.sleep(0.01)
    return changes


def test_every_answer_is_right_or_a_plausible_error_whatever_happens(tmp_path: Path) -> None:
    models = [
        Model("two", save(tmp_path / "two", two_regions, x=spec(WIDTH))),
        Model("padded", save(tmp_path / "padded", padded, x=spec(None))),
        Model("words", save(tmp_path / "words", words, text=spec(dtype=tf.string))),
        Model("loop", save(tmp_path / "loop", loop, x=spec(WIDTH), steps=spec(dtype=tf.int32))),
    ]
    problems: list[str] = []
    answered = [0] * THREADS
    end = time.monotonic() + SECONDS
    callers = [
        threading.Thread(target=call_until, args=(end, models, seed, problems, answered)) for seed in range(THREADS)
    ]
    for caller in callers:
        caller.start()
    changes = change_until(time.monotonic() + SECONDS / 2, models, problems)
    before = threads_of_this_process()
    change_until(end, models, problems)
    after = threads_of_this_process()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert not problems, problems[0]
    assert changes > 20
    assert all(answered), answered
    assert len(after) <= len(before) + 1, (before, after)
    # The lane's timer, and at most one worker more than batches in flight (two); others inherit a worker's name.
    assert sum(name.startswith("tessera-batch") for name in after) <= 6
    for model in models:
        for stats in model.graph.batching_stats().values():
            assert (stats["enqueued_rows"], stats["enqueued_bytes"], stats["in_loop"]) == (0, 0, 0)
    assert _graph.batch_lanes()["cpu:0"]["in_flight"] == 0
