"""The numbers of a fault, and the table of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from admin.tensors import to_tensor
from protos import serving_pb2
from support import fault_report
from support.fault_report import Measured
from support.open_load import Fault, OpenLoad, Sample, usual_of
from support.serving import FLOAT32


def _requests(begin_s: float, count: int, took_s: float, failure: str = "") -> list[Sample]:
    return [Sample(begin_s + number / 100, took_s, failure) for number in range(count)]


def test_requests_that_were_due_while_a_fault_lasted_count_and_are_measured_against_those_before_the_first() -> None:
    fault = Fault("4", "a server is late", begin_s=10.0, rate=100.0, end_s=20.0)
    samples = [
        *_requests(8.0, 20, 5.0),  # they waited for their connection
        *_requests(9.0, 50, 0.001),
        *_requests(10.0, 98, 0.001),
        *_requests(11.0, 1, 0.5),
        *_requests(12.0, 1, 30.0, "UNAVAILABLE: nobody there"),
        *_requests(13.0, 1, 0.002, "wrong: the answer is not that of version 2, which it claims"),
        *_requests(20.0, 50, 5.0),  # it is over
    ]
    measured = fault.measured(usual_of(samples, 10.0), samples)
    assert (measured.requests, measured.failed, measured.wrong) == (101, 1, 1)
    assert (measured.p99_before_ms, measured.p99_during_ms) == (1.0, 500.0)
    assert measured.recovery_s == 32.0  # until the one that failed had ended
    fault.recovered_s = 11.0
    assert fault.measured(usual_of(samples, 10.0), samples).recovery_s == 1.0
    assert fault.measured([], []).requests == 0


def _answer(version: int, value: float) -> bytes:
    response = serving_pb2.PredictResponse()
    response.model_spec.version.value = version
    response.outputs["y"].CopyFrom(to_tensor("y", [value], FLOAT32))
    return response.SerializeToString()


def test_an_answer_is_right_if_it_is_that_of_the_version_that_it_claims() -> None:
    model: Any = SimpleNamespace(expected={1: {"y": [1.0]}, 2: {"y": [2.0]}})
    load = OpenLoad({}, model)
    for _ in range(2):  # the second time by their bytes
        assert load._read(_answer(1, 1.0)) == (1, True)
        assert load._read(_answer(2, 2.0)) == (2, True)
        assert load._read(_answer(2, 1.0)) == (2, False), "of another version"
        assert load._read(_answer(3, 2.0)) == (3, False), "of a version that is not there"


def _measured(number: str, what: str, **changes: object) -> Measured:
    values = {"rate": 50.0, "requests": 1200, "failed": 0, "wrong": 0, "p99_before_ms": 2.0, "p99_during_ms": 3.25}
    return Measured(number=number, what=what, **{**values, "recovery_s": 1.0, **changes})  # type: ignore[arg-type]


def test_the_table_has_a_row_a_fault_in_the_order_of_their_numbers() -> None:
    rows = [
        _measured("10", "moves"),
        _measured("4", "late", note="8 second requests", test="tests/faults/test_a.py::test_late"),
        _measured("10", "moves", failed=3),  # again: the last one counts
    ]
    assert fault_report.table(rows).splitlines()[2:] == [
        "| 4 | late: 8 second requests | 1,200 | 0 | 0 | 2.0 → 3.2 | 1.0 | `test_a.py` `test_late` |",
        "| 10 | moves | 1,200 | 3 | 0 | 2.0 → 3.2 | 1.0 |  |",
    ]


def test_what_is_recorded_comes_into_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, document = tmp_path / "report", tmp_path / "document.md"
    monkeypatch.delenv(fault_report.REPORT_ENV, raising=False)
    fault_report.record(_measured("1", "nobody asked"))
    monkeypatch.setenv(fault_report.REPORT_ENV, str(report))
    fault_report.record(_measured("4", "late"))
    assert json.loads(report.read_text("utf-8"))["test"].endswith("test_what_is_recorded_comes_into_the_document")
    document.write_text(f"before {fault_report.BEGIN} old {fault_report.END} after", "utf-8")
    assert fault_report.main([str(report), str(document)]) == 0
    text = document.read_text("utf-8")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert "| 4 | late | 1,200 |" in text
    assert "nobody asked" not in text
    assert "50 requests/s" in text
