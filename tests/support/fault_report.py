"""What tests of faults measured: one line of JSON each, and the table that `make fault-table` makes of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine, report

REPORT_ENV = "TESSERA_FAULT_REPORT"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


@dataclass(frozen=True)
class Measured:
    """One fault: its number in the list of faults, what was done, and what became of the requests meanwhile.

    Attributes:
        recovery_s: from the fault until the last request that failed, or took more than three times the p99 before,
            had ended; or until what the test waits for.
    """

    number: str
    what: str
    rate: float
    requests: int
    failed: int
    wrong: int
    p99_before_ms: float
    p99_during_ms: float
    recovery_s: float
    note: str = ""
    test: str = ""


def record(measured: Measured) -> None:
    """Add a line to the file that TESSERA_FAULT_REPORT names, if it names one."""
    path = os.environ.get(REPORT_ENV)
    if path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(measured), "test": test}) + "\n")


def table(rows: list[Measured]) -> str:
    """Return the rows as a Markdown table, by number; of a fault that was measured twice the last."""
    newest = {(row.number, row.what): row for row in rows}
    lines = [
        "| # | fault | requests | failed | wrong | p99 before → during, ms | recovery, s | test |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in sorted(newest.values(), key=lambda row: float(row.number)):
        what = f"{row.what}: {row.note}" if row.note else row.what
        file, _, test = row.test.partition("::")
        latencies = f"{row.p99_before_ms:.1f} → {row.p99_during_ms:.1f}"
        cells = [row.number, what, f"{row.requests:,}", str(row.failed), str(row.wrong), latencies]
        cells += [f"{row.recovery_s:.1f}", f"`{Path(file).name}` `{test}`" if test else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """`python -m support.fault_report FILE DOCUMENT`: put the table between the document's markers."""
    file, document = (Path(argument) for argument in arguments)
    rows = [Measured(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    about, commit = machine.describe(), machine.commit(Path(__file__).resolve().parents[2])
    rates = ", ".join(f"{rate:.0f}" for rate in sorted({row.rate for row in rows}))
    text = (
        f"{table(rows)}\n\nMeasured at `{commit}` with {rates} requests/s on {about['cpu']}, "
        f"{about['cores']} cores, Linux {about['kernel']}."
    )
    document.write_text(report.between_markers(document.read_text("utf-8"), text, BEGIN, END), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
