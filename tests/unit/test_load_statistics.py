"""Counters of loads and warm-ups: what they say, and that they cannot grow without end."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from router.load_statistics import BOUNDS_MICROS, MAX_SERIES, Latencies, LoadRecorder
from tessera.errors import Code


def test_attempts_are_counted_by_model_path_and_outcome() -> None:
    recorder = LoadRecorder()
    recorder.loaded("m", Path("/m/1"), Code.OK, 1.0)
    recorder.loaded("m", Path("/m/1"), Code.OK, 2.0)
    recorder.loaded("m", Path("/m/2"), Code.DATA_LOSS, 0.5)
    recorder.warmed_up(Path("/m/1"), Code.OK, 0.25, 3)
    recorder.warmed_up(Path("/m/1"), Code.OK, 0.25, 4)
    found = recorder.read()
    assert found.loads == {("m", "OK"): 2, ("m", "DATA_LOSS"): 1}
    assert found.load_times["m", "OK"].sum_micros == 3e6
    assert found.path_loads == {("/m/1", "OK"): 2, ("/m/2", "DATA_LOSS"): 1}
    assert found.path_load_micros == {"/m/1": 3e6}
    assert sum(found.warm_ups["/m/1", "OK"].counts) == 2
    assert found.warm_up_records == {("/m/1", "OK"): 7}


def test_series_that_were_used_longest_ago_are_forgotten() -> None:
    recorder = LoadRecorder()
    for version in range(MAX_SERIES + 10):
        recorder.loaded("m", Path(f"/m/{version}"), Code.OK, 0.0)
        recorder.loaded("m", Path("/m/0"), Code.OK, 0.0)
    found = recorder.read()
    assert len(found.path_loads) == len(found.path_load_micros) == MAX_SERIES
    assert found.path_loads["/m/0", "OK"] == MAX_SERIES + 11
    assert ("/m/1", "OK") not in found.path_loads


@given(st.floats(0, 1e12))
def test_a_time_is_in_the_first_cell_whose_bound_is_above_it(micros: float) -> None:
    cell = Latencies().plus(micros).counts.index(1)
    assert cell == sum(bound <= micros for bound in BOUNDS_MICROS)
