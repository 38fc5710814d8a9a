"""The cost gate: pure decisions, and measuring with a clock of its own."""

from __future__ import annotations

from typing import Any

import pytest

from batching.cost import LOOP_STEP_OVERHEAD_S, MIN_OVERHEADS, STEP_OVERHEAD_S, Cost, decide, measure


def cost(one_micros: float, eight_micros: float) -> Cost:
    return Cost({1: one_micros * 1e-6, 8: eight_micros * 1e-6, 32: eight_micros * 4e-6})


@pytest.mark.parametrize(
    ("one", "eight", "in_loop", "insert", "reason"),
    [
        (100, 200, False, True, "eight rows take 2.0 times as long as one"),
        (89, 100, False, False, "too small: one row takes 89 µs, expected 90 µs"),
        (100, 110, True, False, "too small: one row takes 100 µs, expected 120 µs"),
        (121, 300, True, True, "eight rows take 2.5 times"),
        (100, 400, False, False, "gains too little: eight rows take 4.0 times as long as one"),
        (100, 399, False, True, "eight rows take 4.0 times"),
    ],
)
def test_decisions(one: float, eight: float, in_loop: bool, insert: bool, reason: str) -> None:
    verdict = decide(cost(one, eight), in_loop=in_loop)
    assert verdict.insert is insert
    assert verdict.reason.startswith(reason)


def test_lookups_on_servers_always_pay() -> None:
    verdict = decide(cost(5, 300), in_loop=False, remote_lookups=3)
    assert verdict.insert
    assert "3 tables" in verdict.reason


def test_the_limits_are_what_the_scheduler_promises() -> None:
    assert pytest.approx(30e-6) == STEP_OVERHEAD_S
    assert pytest.approx(40e-6) == LOOP_STEP_OVERHEAD_S
    assert MIN_OVERHEADS == 3


class FakeProbe:
    """Takes 50 µs and some more for each row, in a call that takes 100 µs; every fifth call is disturbed."""

    def __init__(self, row_s: float = 10e-6) -> None:
        self.now_s = 0.0
        self.calls = 0
        self.row_s = row_s

    def rows(self, count: int, seed: int) -> Any:
        return count

    def run(self, inputs: Any) -> None:
        self.calls += 1
        self.now_s += 150e-6 + inputs * self.row_s + (0.01 if self.calls % 5 == 0 else 0)

    def idle(self, inputs: Any) -> None:
        self.now_s += 100e-6


def test_the_call_and_disturbances_are_not_measured() -> None:
    probe = FakeProbe()
    found = measure(probe, now_s=lambda: probe.now_s)  # type: ignore[arg-type]
    for rows in (1, 8, 32):
        assert found.seconds[rows] == pytest.approx(50e-6 + rows * 10e-6, rel=1e-6)
    assert probe.now_s < 5


def test_what_is_slow_is_not_run_more_often_than_needed() -> None:
    probe = FakeProbe(row_s=0.1)
    found = measure(probe, now_s=lambda: probe.now_s)  # type: ignore[arg-type]
    assert found.seconds == {1: pytest.approx(0.10005), 8: pytest.approx(0.80005)}
    assert probe.calls <= 12
