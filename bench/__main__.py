"""`python -m bench [CASE …]`: measures, prints a table, writes bench/results/latest.json."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the cases that were asked for; return 0 if all of them could be measured, goals reached or not."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # as Tessera's router; before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from bench import machine, report
    from bench.cases import CASES
    from bench.context import Context, Durations, say
    from tessera.errors import TesseraError

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"what to measure: {', '.join(CASES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--seconds", type=float, help="of each run (default: 2, and for --quick 0.3)")
    parser.add_argument("--work-dir", type=Path, default=CHECKOUT / "build" / "bench", help="models, packages, logs")
    parser.add_argument(
        "--output",
        type=Path,
        help="results file (default: bench/results/latest.json, or partial.json for --quick and single cases)",
    )
    parser.add_argument("--update", action="store_true", help="put the rows of these cases into latest.json")
    options = parser.parse_args()
    if unknown := [name for name in options.case if name not in CASES]:
        parser.error(f"CASE: got {unknown[0]}, expected one of {', '.join(CASES)}")
    partial = options.quick or options.case
    output = options.output or CHECKOUT / "bench" / "results" / ("partial.json" if partial else "latest.json")

    signal.signal(signal.SIGTERM, _end)
    durations = Durations.quick() if options.quick else Durations()
    if options.seconds is not None:
        durations = replace(durations, run_s=options.seconds, warm_up_s=min(durations.warm_up_s, options.seconds))
    context = Context(options.work_dir.resolve(), durations)
    rows: list[report.Row] = []
    failed = False
    commit, about = machine.commit(CHECKOUT), {"machine": machine.describe()}
    for name in options.case or CASES:
        say(f"case {name}")
        try:
            measured = CASES[name](context)
            rows += [replace(row, case=name, commit=commit, run_s=durations.run_s) for row in measured]
        except (TesseraError, subprocess.SubprocessError) as error:
            failed = True
            say(f"case {name} failed: {error}")
        report.write(
            CHECKOUT / "bench" / "results" / "partial.json", rows, about
        )  # kept if a later case is interrupted
    print(report.text_table(rows))
    if options.update:
        output = CHECKOUT / "bench" / "results" / "latest.json"
        rows = report.renewed(report.read(output)[0], rows, CASES)
    report.write(output, rows, about)
    say(f"wrote {output}")
    return 1 if failed else 0


def _end(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that servers are ended too."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
