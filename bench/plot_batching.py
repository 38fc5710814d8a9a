"""`python -m bench.plot_batching`: draws the measured curves of batching as docs/images/batching-*.svg."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench import report
from tessera.errors import FailedPreconditionError, TesseraError

CHECKOUT = Path(__file__).resolve().parents[1]
_WIDTH, _HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 76
_COLORS = ("#0b62a4", "#d1495b", "#5f6b6d")
_NAMES = {
    "events": "Tessera (event threads)",
    "threads": "Tessera (a thread per client)",
    "best": "best of the others",
    "tessera": "Tessera (event threads)",
    "tessera_threads": "Tessera (a thread per client)",
}


@dataclass(frozen=True)
class Curve:
    """A line: its name and its points (x, y), both positive."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """A picture: `file` is its name without folder; both axes are logarithmic."""

    file: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


def plots(rows: Sequence[report.Row]) -> list[Plot]:
    """Return what the rows of `bench.batching` show: per workload rate and median over clients, latency over rate."""
    closed: dict[str, dict[int, Mapping[str, float]]] = {}
    opened: dict[str, dict[float, Mapping[str, float]]] = {}
    for row in rows:
        if (found := re.fullmatch(r"batch_(\w+)_c(\d+)", row.name)) and row.detail:
            closed.setdefault(found[1], {})[int(found[2])] = row.detail
        elif (found := re.fullmatch(r"batch_(\w+)_at\d+", row.name)) and row.detail:
            rate = row.detail["tessera.offered"]
            opened.setdefault(found[1], {})[rate] = row.detail
    made = []
    for workload, by_clients in sorted(closed.items()):
        for key, what, factor in (("rate", "requests/s", 1.0), ("p50_us", "median latency, ms", 1e-3)):
            curves = tuple(
                Curve(_NAMES[name], tuple((c, by_clients[c][f"{name}.{key}"] * factor) for c in sorted(by_clients)))
                for name in ("events", "threads", "best")
            )
            file = f"batching-{workload}-{'throughput' if key == 'rate' else 'latency'}.svg"
            made.append(Plot(file, workload, "clients", what, curves))
    for workload, by_rate in sorted(opened.items()):
        names = ("tessera", "tessera_threads")
        curves = tuple(
            Curve(_NAMES[name], tuple((rate, by_rate[rate][f"{name}.p50_us"] * 1e-3) for rate in sorted(by_rate)))
            for name in names
        )
        best = tuple((rate, _best_p50_us(by_rate[rate], names) * 1e-3) for rate in sorted(by_rate))
        curves += (Curve(_NAMES["best"], tuple(point for point in best if point[1] > 0)),)
        made.append(Plot(f"batching-{workload}-open.svg", workload, "requests/s offered", "median latency, ms", curves))
    return made


def svg(plot: Plot) -> str:
    """Return the picture.

    Raises:
        FailedPreconditionError: a point is not positive, or there is none.
    """
    points = [point for curve in plot.curves for point in curve.points]
    if not points or min(value for point in points for value in point) <= 0:
        raise FailedPreconditionError(f"{plot.file}: got {points}, expected positive numbers")
    x_axis = _Axis.around([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.around([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _text(_WIDTH / 2, 18, f"{plot.title}: {plot.y_label}", size=13),
        _text(_WIDTH / 2, _HEIGHT - _BOTTOM + 34, plot.x_label),
    ]
    for value in x_axis.ticks():
        x = x_axis.place(value)
        parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, "#eee"))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 16, report.number(value)))
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#eee"))
        parts.append(_text(_LEFT - 6, y + 4, report.number(value), anchor="end"))
    for i, curve in enumerate(plot.curves):
        color = _COLORS[i % len(_COLORS)]
        placed = [(x_axis.place(x), y_axis.place(y)) for x, y in curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in placed]
        legend_y = _HEIGHT - 30 + 13 * (i // 2)
        legend_x = _LEFT + 200 * (i % 2)
        parts.append(_line(legend_x, legend_y - 4, legend_x + 18, legend_y - 4, color, width=2))
        parts.append(_text(legend_x + 24, legend_y, curve.name, anchor="start"))
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` at pixel `first` to `high` at pixel `last`."""

    low: float
    high: float
    first: float
    last: float

    @classmethod
    def around(cls, values: Sequence[float], first: float, last: float) -> _Axis:
        low, high = min(values) / 1.15, max(values) * 1.15
        return cls(low, high, first, last)

    def place(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Return 1, 2 and 5 times the powers of ten in range; only the powers when that is many."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(ticks) <= 8:
                break
        return ticks


def _best_p50_us(detail: Mapping[str, float], ours: Sequence[str]) -> float:
    """Return the lowest median of the baselines that keep up, else of those that answered; 0 if none did."""
    others = {
        key.removesuffix(".p50_us"): value
        for key, value in detail.items()
        if key.endswith(".p50_us") and key.removesuffix(".p50_us") not in ours and value > 0
    }
    good = {name: value for name, value in others.items() if detail[f"{name}.rate"] >= 0.95 * detail[f"{name}.offered"]}
    return min((good or others).values(), default=0.0)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def main() -> int:
    """Draw all pictures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot_batching", description=__doc__)
    parser.add_argument("--results", type=Path, default=CHECKOUT / "bench" / "results" / "latest.json")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs" / "images", help="folder of the pictures")
    options = parser.parse_args()
    try:
        rows, _ = report.read(options.results)
        drawn = plots(rows)
        if not drawn:
            raise FailedPreconditionError(
                f"{options.results}: has no rows of batching, which `python -m bench` measures"
            )
        options.output.mkdir(parents=True, exist_ok=True)
        for plot in drawn:
            (options.output / plot.file).write_text(svg(plot), "utf-8")
    except TesseraError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
