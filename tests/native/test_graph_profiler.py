"""`_graph.Profiler`: what TensorFlow's tracers see of this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpp_ext import _graph
from support.small_models import half_plus
from tessera.errors import InvalidArgumentError, UnavailableError

pytestmark = pytest.mark.native


def test_a_profile_shows_the_runs_of_its_time_and_no_others(tmp_path: Path) -> None:
    graph = _graph.Graph.load(str(half_plus(tmp_path, 2.0)))

    def run() -> None:
        graph.run("serving_default", {"x": np.array([1.0], np.float32)})

    run()
    profiler = _graph.Profiler()
    for _ in range(3):
        run()
    xspace, is_empty = profiler.collect()
    run()
    assert not is_empty
    assert b"Run serving_default" in xspace
    again, is_empty = _graph.Profiler().collect()
    assert is_empty
    assert b"Run serving_default" not in again


def test_one_profile_at_a_time() -> None:
    first = _graph.Profiler()
    with pytest.raises(UnavailableError, match="cannot profile now: "):
        _graph.Profiler()
    del first
    _graph.Profiler().collect()


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"opts: expected a tensorflow\.ProfileOptions"):
        _graph.Profiler(b"\xff\xff\xff")
