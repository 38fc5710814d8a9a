"""What loading and warming up models has counted."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tessera.errors import Code

MAX_SERIES = 256
"""Series of each metric; those that were used longest ago are forgotten, since every version has a path of its own."""

BOUNDS_MICROS = tuple(10 * 1.8**power for power in range(33))
"""Upper bounds of the cells of `Latencies`; TensorFlow Serving's."""

_Value = TypeVar("_Value")
_Series = tuple[str, str]


@dataclass(frozen=True)
class Latencies:
    """A histogram; cell i counts what is below `BOUNDS_MICROS[i]`, the last one everything above."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_MICROS) + 1)
    sum_micros: float = 0.0

    def plus(self, micros: float) -> Latencies:
        """Return these and one more."""
        counts = list(self.counts)
        counts[bisect_right(BOUNDS_MICROS, micros)] += 1
        return Latencies(tuple(counts), self.sum_micros + micros)


@dataclass(frozen=True)
class LoadStatistics:
    """One reading. Keys are (model or path, name of the status code).

    Attributes:
        loads: attempts by model.
        load_times: of those, by model.
        path_loads: attempts by path.
        path_load_micros: time of the successful ones, by path alone.
        warm_ups: times by path.
        warm_up_records: records that were replayed, by path.
    """

    loads: Mapping[_Series, int] = field(default_factory=dict)
    load_times: Mapping[_Series, Latencies] = field(default_factory=dict)
    path_loads: Mapping[_Series, int] = field(default_factory=dict)
    path_load_micros: Mapping[str, float] = field(default_factory=dict)
    warm_ups: Mapping[_Series, Latencies] = field(default_factory=dict)
    warm_up_records: Mapping[_Series, int] = field(default_factory=dict)


class LoadRecorder:
    """Counts; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: dict[_Series, int] = {}
        self._load_times: dict[_Series, Latencies] = {}
        self._path_loads: dict[_Series, int] = {}
        self._path_load_micros: dict[str, float] = {}
        self._warm_ups: dict[_Series, Latencies] = {}
        self._warm_up_records: dict[_Series, int] = {}

    def loaded(self, model: str, path: Path, code: Code, seconds: float) -> None:
        """Count an attempt to load the version in `path`, which took `seconds` and ended with `code`."""
        micros, by_model, by_path = seconds * 1e6, (model, code.name), (str(path), code.name)
        with self._lock:
            _set(self._loads, by_model, self._loads.get(by_model, 0) + 1)
            _set(self._load_times, by_model, self._load_times.get(by_model, Latencies()).plus(micros))
            _set(self._path_loads, by_path, self._path_loads.get(by_path, 0) + 1)
            if code == Code.OK:
                before = self._path_load_micros.get(str(path), 0.0)
                _set(self._path_load_micros, str(path), before + micros)

    def warmed_up(self, path: Path, code: Code, seconds: float, records: int) -> None:
        """Count a warm-up with `records` requests, which took `seconds` and ended with `code`."""
        key = (str(path), code.name)
        with self._lock:
            _set(self._warm_ups, key, self._warm_ups.get(key, Latencies()).plus(seconds * 1e6))
            _set(self._warm_up_records, key, self._warm_up_records.get(key, 0) + records)

    def read(self) -> LoadStatistics:
        """Return the counters of this moment."""
        with self._lock:
            return LoadStatistics(
                dict(self._loads),
                dict(self._load_times),
                dict(self._path_loads),
                dict(self._path_load_micros),
                dict(self._warm_ups),
                dict(self._warm_up_records),
            )


_Any = TypeVar("_Any")


def _set(series: dict[_Any, _Value], key: _Any, value: _Value) -> None:
    """Make `key` the last of `series`, and forget the first when there are too many."""
    series.pop(key, None)
    series[key] = value
    if len(series) > MAX_SERIES:
        del series[next(iter(series))]
