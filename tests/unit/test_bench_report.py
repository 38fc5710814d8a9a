"""Rows, goals, tables, and the README's copy."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import report
from tessera.errors import InvalidArgumentError, NotFoundError

_ABOUT: dict[str, Any] = {
    "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 8, "kernel": "6.1", "tensorflow": "2.21.0"},
}


def _row(**changed: Any) -> report.Row:
    defaults: dict[str, Any] = {"name": "a", "value": 70.0, "unit": "x", "baseline": "b", "baseline_value": 100.0}
    return report.Row(**defaults | changed)


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({"goal": 0.7}, True),
        ({"goal": 0.71}, False),
        ({"goal": 0.7, "higher_is_better": False}, True),
        ({"goal": 0.6, "higher_is_better": False}, False),
        ({"goal": 80.0, "goal_on": "value"}, False),
        ({"goal": 80.0, "goal_on": "value", "higher_is_better": False}, True),
        ({}, None),
        ({"goal": 0.7, "baseline_value": None}, None),
    ],
)
def test_goals(changed: dict[str, Any], met: bool | None) -> None:
    assert _row(**changed).met is met


def test_a_row_without_baseline_has_no_ratio() -> None:
    assert _row(baseline="", baseline_value=None).ratio is None
    assert _row().ratio == 0.7


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [_row(goal=0.65, detail={"c1_p50_us": 90.0}), _row(name="b", baseline="", baseline_value=None)]
    path = tmp_path / "results" / "latest.json"
    report.write(path, rows, _ABOUT)
    assert report.read(path) == (rows, _ABOUT)
    first = json.loads(path.read_text())["results"][0]
    assert (first["name"], first["ratio"], first["goal"], first["met"]) == ("a", 0.7, 0.65, True)


def test_missing_results_name_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"latest\.json: not there; `python -m bench`"):
        report.read(tmp_path / "latest.json")


def test_markdown_has_every_row_and_the_machine() -> None:
    lines = report.markdown([_row(goal=0.65), _row(name="extra", value=1234.5)], _ABOUT).splitlines()
    assert lines[2] == "| a | 70.0 | x | b | 100 | 0.70 | ratio ≥ 0.65 | yes |"
    assert lines[3].startswith("| extra | 1,234 | x |") or lines[3].startswith("| extra | 1,235 | x |")
    assert "A CPU, 2 cores" in lines[-1]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_the_table_names_every_commit_that_was_measured() -> None:
    rows = [_row(commit="abc"), _row(commit="def+changes"), _row(commit="abc")]
    assert report.markdown(rows, _ABOUT).splitlines()[-1].startswith("Measured at `abc`, `def+changes` on A CPU")


def test_a_case_that_is_measured_again_replaces_all_its_rows() -> None:
    old = [_row(name=name, case=name[0]) for name in ("a1", "a2", "b1", "gone")]
    new = [_row(name="a3", case="a", value=1.0), _row(name="c1", case="c")]
    assert [row.name for row in report.renewed(old, new, ("c", "a", "b"))] == ["c1", "a3", "b1"]


def test_rows_of_several_concurrencies_get_a_table_of_their_own() -> None:
    detail = {
        f"c{c}_{name}": value
        for c in report.CONCURRENCIES
        for name, value in {"requests_per_s": 1500.0 * c, "p50_us": 120.0, "p99_us": 2345.6}.items()
    }
    loaded = _row(name="loaded", detail=detail)
    assert "| loaded | 1,500, 0.12/2.35 | 12,000, 0.12/2.35 |" in report.markdown([_row(), loaded], _ABOUT)
    assert report.text_table([_row(), loaded]).splitlines()[-1].split()[:3] == ["loaded", "1,500,", "0.12/2.35"]


def test_text_table_is_aligned() -> None:
    header, first, second = report.text_table([_row(), _row(name="longer", value=1e6)]).splitlines()
    assert header.split()[:2] == ["name", "value"]
    assert first.index(" x ") == second.index(" x ")


_TEXTS = st.text().filter(lambda text: "<!--" not in text)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS)
def test_only_what_is_between_the_markers_changes(before: str, old: str, after: str, table: str) -> None:
    document = f"{before}{report.BEGIN}{old}{report.END}{after}"
    replaced = report.between_markers(document, table)
    assert replaced == f"{before}{report.BEGIN}\n{table}\n{report.END}{after}"
    assert report.between_markers(replaced, table) == replaced


@pytest.mark.parametrize("document", ["", report.BEGIN, report.END + report.BEGIN, (report.BEGIN + report.END) * 2])
def test_documents_without_one_pair_of_markers_are_refused(document: str) -> None:
    with pytest.raises(InvalidArgumentError, match="bench:begin"):
        report.between_markers(document, "table")


@pytest.mark.parametrize(
    ("value", "text"), [(123456.7, "123,457"), (45.678, "45.7"), (1.2345, "1.23"), (0.0123, "0.0123"), (0, "0")]
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert report.number(value) == text
