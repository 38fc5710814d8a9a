"""What the comparison of batching makes of its measurements."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from bench import batching_rows, plot_batching
from bench.batching_driver import Load, Result
from bench.batching_rows import OURS, OURS_THREADS, OURS_UNBATCHED, Point
from bench.report import Row
from tessera.errors import FailedPreconditionError, InternalError


def _point(rate: float, p50_us: float = 100.0, *, offered: float = 0.0) -> Point:
    return Point(rate, offered or rate, p50_us, 2 * p50_us, 10.0)


_POINTS = {
    OURS: _point(300.0),
    OURS_THREADS: _point(200.0, 80.0),
    OURS_UNBATCHED: _point(90.0, 60.0),
    "function_t0_n1_m64": _point(100.0, 70.0),
    "function_t1000_n1_m64": _point(110.0, 900.0),
    "none_session": _point(50.0, 40.0),
}


def _result(**changes: object) -> Result:
    load = {"wrong": 0, "errors": {}, "good": 4, "good_per_s": 2.0, "offered": 4, "p50_us": 1.0, "p99_us": 2.0}
    return Result(({**load, **changes},), {"cpu_s": 2.0, "rows": 6, "batches": 4})


def test_a_result_becomes_a_point() -> None:
    assert batching_rows.point("x", _result(), 2.0) == Point(2.0, 2.0, 1.0, 2.0, 5e5, 1.5)


@pytest.mark.parametrize("changes", [{"wrong": 1}, {"errors": {"INTERNAL": 1}}, {"good": 0}])
def test_wrong_failed_or_missing_answers_are_errors(changes: dict[str, object]) -> None:
    with pytest.raises(InternalError, match="good answers only"):
        batching_rows.point("x", _result(**changes), 1.0)


def test_medians_are_of_each_field() -> None:
    runs = [_point(1.0, 9.0), _point(3.0, 5.0), _point(2.0, 7.0)]
    assert batching_rows.median(runs) == _point(2.0, 7.0)


def test_finalists_are_the_fastest_and_then_those_with_low_latency() -> None:
    assert batching_rows.fastest(batching_rows.baselines(_POINTS), 2) == [
        "function_t1000_n1_m64",
        "function_t0_n1_m64",
        "none_session",
    ]


def test_names_that_come_often_are_first() -> None:
    assert batching_rows.most_often([["a", "b"], ["b", "c"], ["b", "a"]]) == ["b", "a", "c"]


def test_closed_loops_compare_the_same_driving_with_the_best_of_the_others() -> None:
    same, natural = batching_rows.closed_rows("w", 32, _POINTS, swept=_POINTS, goal=1.3)
    assert (same.name, same.value, same.baseline_value, same.goal) == ("batch_w_c32", 200.0, 110.0, 1.3)
    assert same.baseline == "function_t1000_n1_m64, best of 4"
    assert (natural.name, natural.value, natural.goal) == ("batch_w_c32_events", 300.0, None)
    assert same.detail is not None
    assert same.detail["swept.none_session.rate"] == 50.0


def test_open_loops_compare_with_what_keeps_up() -> None:
    points = {
        OURS_THREADS: _point(100.0, 50.0, offered=100.0),
        "drops": _point(50.0, 1.0, offered=100.0),
        "slow": _point(99.0, 70.0, offered=100.0),
    }
    p50, p99 = batching_rows.open_rows("w", "at50", 100.0, points, p50_goal=0.5)
    assert (p50.name, p50.value, p50.baseline_value, p50.met) == ("batch_w_at50", 50.0, 70.0, False)
    assert (p99.name, p99.baseline_value, p99.goal) == ("batch_w_at50_p99", 140.0, None)


def test_open_loops_that_none_can_serve_compare_with_the_one_that_answers_most() -> None:
    points = {OURS_THREADS: _point(100.0), "a": _point(50.0, 1.0, offered=100.0), "b": _point(60.0, 9.0, offered=100.0)}
    row, _ = batching_rows.open_rows("w", "at95", 100.0, points)
    assert row.baseline_value == 9.0
    assert "does not keep up" in row.baseline


def test_overhead_is_the_difference_to_no_batching_on_both_sides() -> None:
    row = batching_rows.overhead_row("o", _POINTS, _POINTS, goal_us=30.0, steps=2.0)
    assert (row.value, row.baseline_value, row.met) == (10.0, 15.0, True)


def test_capacity_is_the_baselines() -> None:
    assert batching_rows.capacity([_POINTS, {OURS: _point(1000.0), "a": _point(120.0)}]) == 120.0


def test_loads_are_written_as_the_driver_reads_them() -> None:
    assert Load(clients=8).words == "0:closed:8"
    assert Load(rate=2.5, model=1).words == "1:open:2.5"


def _measured() -> list[Row]:
    rows = [row for clients in (1, 32) for row in batching_rows.closed_rows("mlp512", clients, _POINTS, swept=_POINTS)]
    return [*rows, *batching_rows.open_rows("mlp512", "at50", 55.0, _POINTS)]


def test_plots_have_the_measured_points() -> None:
    plots = {plot.file: plot for plot in plot_batching.plots(_measured())}
    assert set(plots) == {f"batching-mlp512-{what}.svg" for what in ("throughput", "latency", "open")}
    curve = plots["batching-mlp512-throughput.svg"].curves[0]
    assert curve.points == ((1, 300.0), (32, 300.0))
    best = plots["batching-mlp512-open.svg"].curves[-1]
    assert best.points == ((300.0, 0.04),)


def test_pictures_stay_inside_their_frame() -> None:
    for plot in plot_batching.plots(_measured()):
        picture = plot_batching.svg(plot)
        for x, y in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)"', picture):
            assert 0 < float(x) < 480
            assert 0 < float(y) < 320
        assert picture.count("<polyline") == 3


def test_a_point_that_cannot_be_on_a_logarithmic_axis_is_refused() -> None:
    plot = plot_batching.Plot("f.svg", "t", "x", "y", (plot_batching.Curve("c", ((1.0, 0.0),)),))
    with pytest.raises(FailedPreconditionError, match="positive"):
        plot_batching.svg(plot)


def test_samples_are_encoded_as_the_driver_reads_them() -> None:
    pytest.importorskip("tensorflow")
    from bench.batching_variants import encode_samples

    x, y = np.zeros((1, 2), np.float32), np.ones((1,), np.int64)
    content = encode_samples([({"x": x}, {"y": y}), ({"x": x}, None)])
    assert struct.unpack_from("<3I", content) == (1, 1, 2)
    assert content[12:22] == b"\x01\0\0\0x\x01\0\0\0y"
    assert content[22:26] == b"\0\0\0\0"  # not poisoned


def test_settings_reach_every_batch_function() -> None:
    pytest.importorskip("tensorflow")
    from tensorflow.core.protobuf import saved_model_pb2

    from bench.batching_variants import Settings, set_batch_functions

    saved_model = saved_model_pb2.SavedModel()
    graph = saved_model.meta_graphs.add().graph_def
    nodes = [graph.node.add(), graph.library.function.add().node_def.add(), graph.node.add()]
    for node, op in zip(nodes, ("BatchFunction", "BatchFunction", "MatMul"), strict=True):
        node.op = op
    assert set_batch_functions(saved_model, Settings(200, 0, 16)) == 2
    for node in nodes[:2]:
        assert {name: value.i for name, value in node.attr.items()} == {
            "num_batch_threads": 0,
            "max_batch_size": 16,
            "batch_timeout_micros": 200,
        }
    assert not nodes[2].attr
    assert Settings(200, 0, 16).name == "t200_adaptive_m16"
