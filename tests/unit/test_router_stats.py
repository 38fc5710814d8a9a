"""How what routers count is condensed for `tessera status`."""

import copy
from bisect import bisect_right
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.router_stats import difference, power_quantile, size_quantile, summarise, to_json
from router.status_service import to_message
from support.router_statistics import CELLS, region_stats, router_statistics

_QUANTILES = st.floats(0.01, 1.0)


def _status() -> dict[str, Any]:
    return to_json(to_message(router_statistics(), "0.1.0"))


def test_the_summary_of_a_region() -> None:
    used, unused = (region["summary"] for region in summarise(_status())["regions"])
    assert used == {
        "mean_rows": 12.0,
        "p50_rows": 8,
        "p99_rows": 32,
        "p50_queue_delay_micros": 1.0,
        "p99_queue_delay_micros": pytest.approx(2048 + 2048 * 46 / 50),
        "padding_fraction": 0.0625,
        "length_padding_fraction": 0.25,
        "device_fraction": pytest.approx(0.0105),
        "rejected": 10,
        "dropped": 4,
    }
    nothing = {"rejected": 0, "dropped": 0, "device_fraction": 0.0}
    assert unused == dict.fromkeys(used) | nothing


def test_the_device_is_busy_for_a_part_of_its_time() -> None:
    (lane,) = summarise(_status())["lanes"]
    assert lane["busy_fraction"] == 0.25


@given(st.dictionaries(st.integers(1, 100), st.integers(0, 20)), _QUANTILES)
def test_quantiles_of_sizes_are_those_of_the_sorted_list(counts: dict[int, int], quantile: float) -> None:
    sizes = sorted(size for size, count in counts.items() for _ in range(count))
    found = size_quantile(counts, quantile)
    if not sizes:
        assert found is None
        return
    assert found in sizes
    assert bisect_right(sizes, found) >= quantile * len(sizes)
    smaller = [size for size in sizes if size < found]
    assert len(smaller) < quantile * len(sizes)


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=50), _QUANTILES)
def test_quantiles_of_times_are_in_the_cell_of_the_true_one(values: list[int], quantile: float) -> None:
    counts = [0] * CELLS
    for value in values:
        counts[min(value.bit_length(), CELLS - 1)] += 1
    found = power_quantile(counts, quantile)
    assert found is not None
    exact = size_quantile({value: values.count(value) for value in values}, quantile)
    assert exact is not None
    cell = min(exact.bit_length(), CELLS - 1)
    assert (1 << cell) // 2 <= found <= 1 << cell


def test_no_values_have_no_quantile() -> None:
    assert power_quantile([0] * CELLS, 0.5) is None
    assert size_quantile({}, 0.5) is None


# --- a window of time -----------------------------------------------------------------------------------------------


def test_a_window_counts_what_happened_in_it() -> None:
    before, after = _status(), _status()
    after |= {"uptime_s": 15.0, "requests": 500, "errors": {"UNAVAILABLE": 9, "CANCELLED": 1}, "in_flight": 1}
    after["lanes"][0] |= {"now_ns": 16_000_000_000, "busy_ns": 6_500_000_000, "in_flight": 0}
    stats = after["regions"][0]["stats"]
    stats |= {"tasks": 500, "rows": 1900, "batches": 135, "enqueued_rows": 3, "rejected_rows_bound": 9}
    stats["batch_sizes"] = {"8": 100, "32": 34, "64": 1}
    stats["queue_delay_micros"] = copy.deepcopy(stats["queue_delay_micros"])
    stats["queue_delay_micros"]["counts"][0] += 100

    window = difference(before, after)
    assert (window["uptime_s"], window["requests"], window["in_flight"]) == (5.0, 90, 1)
    assert window["errors"] == {"UNAVAILABLE": 2, "CANCELLED": 1}
    (lane,) = summarise(window)["lanes"]
    assert (lane["busy_fraction"], lane["in_flight"], lane["in_flight_limit"]) == (0.8, 0, 2)
    counted = window["regions"][0]["stats"]
    assert counted["batch_sizes"] == {"8": 0, "32": 9, "64": 1}
    assert (counted["tasks"], counted["enqueued_rows"], counted["cancelled"]) == (100, 3, 0)
    summary = summarise(window)["regions"][0]["summary"]
    assert (summary["mean_rows"], summary["p50_rows"], summary["rejected"]) == (40.0, 32, 2)
    assert 0 < summary["p99_queue_delay_micros"] <= 1.0
    assert window["regions"][0]["policy"] == after["regions"][0]["policy"]


def test_nothing_happens_in_no_time() -> None:
    window = difference(_status(), _status())
    assert window["requests"] == 0
    assert window["regions"][0]["stats"]["batches"] == 0
    assert window["regions"][0]["stats"]["enqueued_rows"] == region_stats()["enqueued_rows"]
    assert summarise(window)["lanes"][0]["busy_fraction"] is None


def test_what_was_started_in_the_window_counts_from_there() -> None:
    before, after = _status(), _status()
    after["regions"][0]["stats"]["tasks"] = 5  # loaded again
    after["regions"].append({**after["regions"][1], "version": 2})
    before["lanes"].clear()
    before["uptime_s"] = 9.0
    window = difference(before, after)
    assert window["regions"][0] == after["regions"][0]
    assert window["regions"][2] == after["regions"][2]
    assert window["lanes"] == after["lanes"]
    restarted = after | {"uptime_s": 1.0}
    assert difference(before, restarted) == restarted
