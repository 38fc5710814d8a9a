"""Rows of results: what they say, the table for people, the README's copy of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from admin.table import render
from tessera.errors import InvalidArgumentError, NotFoundError

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        name: Stable, for comparing runs.
        value: What was measured, in `unit`.
        baseline: What it is measured against in the same run; empty if against nothing.
        baseline_value: In `unit`.
        goal: What is to be reached, by `goal_on`: the ratio value / baseline_value, or the value itself. None: no goal.
        higher_is_better: Which side of the goal is the good one.
        detail: Further measurements of the same run: percentiles, CPU time.
        case: What measured it.
        commit: Of the code that was measured.
        run_s: The length of its runs, seconds.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None
    goal: float | None = None
    goal_on: Literal["ratio", "value"] = "ratio"
    higher_is_better: bool = True
    detail: Mapping[str, float] | None = None
    case: str = ""
    commit: str = ""
    run_s: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Value / baseline_value; None without a baseline."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        reached = self.ratio if self.goal_on == "ratio" else self.value
        if self.goal is None or reached is None:
            return None
        return reached >= self.goal if self.higher_is_better else reached <= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return the row with what follows from it."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def write(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write results as JSON; `about` says what they were measured on."""
    content = {**about, "results": [row.as_json() for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of a results file, and the rest of it.

    Raises:
        NotFoundError: no such file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: not there; `python -m bench` writes it") from None
    derived = {"ratio", "met"}
    rows = [Row(**{k: v for k, v in row.items() if k not in derived}) for row in content.pop("results")]
    return rows, content


def renewed(old: Sequence[Row], new: Sequence[Row], cases: Iterable[str]) -> list[Row]:
    """Return the rows of `old`, but for the cases that are among `new` those of `new`; in the order of `cases`.

    Rows of other cases are left out: nothing measures them any more.
    """
    measured = {row.case for row in new}
    rows = [row for row in old if row.case not in measured] + [*new]
    return [row for case in cases for row in rows if row.case == case]


def text_table(rows: Sequence[Row]) -> str:
    """Return the rows for a terminal, and below them those that were measured at several concurrencies."""
    table = render(_HEADER, [_cells(row) for row in rows], right=("value", "baseline value", "ratio"))
    points = _load_cells(rows)
    return table if not points else f"{table}\n\n{render(_LOAD_HEADER, points, right=_LOAD_HEADER[1:])}"


def markdown(rows: Sequence[Row], content: Mapping[str, Any]) -> str:
    """Return the rows as a Markdown table with the machine that they come from."""
    lines = ["| " + " | ".join(_HEADER) + " |", "| --- | ---: | --- | --- | ---: | ---: | --- | --- |"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    points = _load_cells(rows)
    if points:
        lines += ["", "| " + " | ".join(_LOAD_HEADER) + " |", "| --- |" + " ---: |" * len(CONCURRENCIES)]
        lines += ["| " + " | ".join(cells) + " |" for cells in points]
    machine = content["machine"]
    commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(row.commit for row in rows))
    lines += [
        "",
        f"Measured at {commits} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, TensorFlow {machine['tensorflow']}.",
    ]
    return "\n".join(lines)


def between_markers(document: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """Return `document` with `table` in place of what stands between its two markers.

    Raises:
        InvalidArgumentError: a marker is missing, repeated, or they are in the wrong order.
    """
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise InvalidArgumentError(f"document: expected one {begin} and, after it, one {end}")
    before, rest = document.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


CONCURRENCIES = (1, 8, 32)
"""Requests in flight at which the recommender is measured; the details of its rows start with `c1_` and so on."""

_LOAD_HEADER = ("name", *(f"req/s, p50/p99 ms at {concurrency}" for concurrency in CONCURRENCIES))
_HEADER = ("name", "value", "unit", "baseline", "baseline value", "ratio", "goal", "reached")


def _cells(row: Row) -> list[str]:
    goal = ""
    if row.goal is not None:
        goal = f"{row.goal_on} {'≥' if row.higher_is_better else '≤'} {number(row.goal)}"
    reached = {True: "yes", False: "no", None: ""}[row.met]
    baseline_value = "" if row.baseline_value is None else number(row.baseline_value)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.name, number(row.value), row.unit, row.baseline, baseline_value, ratio, goal, reached]


def _load_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return rate and latencies at each concurrency of the rows that have them."""
    return [
        [row.name, *(_load_cell(row.detail, f"c{concurrency}_") for concurrency in CONCURRENCIES)]
        for row in rows
        if row.detail and f"c{CONCURRENCIES[0]}_p50_us" in row.detail
    ]


def _load_cell(detail: Mapping[str, float], prefix: str) -> str:
    p50_ms, p99_ms = (detail[f"{prefix}{name}_us"] / 1000 for name in ("p50", "p99"))
    return f"{number(detail[f'{prefix}requests_per_s'])}, {p50_ms:.2f}/{p99_ms:.2f}"


def number(value: float) -> str:
    """Return `value` with about three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
