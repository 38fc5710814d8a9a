"""`python -m bench.render [README.md]`: puts the table of bench/results/latest.json between the document's markers."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from bench import report
from tessera.errors import TesseraError

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Rewrite the document; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.render", description=__doc__)
    parser.add_argument("document", type=Path, nargs="?", default=CHECKOUT / "README.md")
    parser.add_argument("--results", type=Path, default=CHECKOUT / "bench" / "results" / "latest.json")
    parser.add_argument("--only", default="*", metavar="GLOB", help="rows with such names (default: all)")
    parser.add_argument("--without", default="", metavar="GLOB", help="no rows with such names (default: none)")
    options = parser.parse_args()
    try:
        rows, content = report.read(options.results)
        rows = [
            row
            for row in rows
            if fnmatch.fnmatchcase(row.name, options.only) and not fnmatch.fnmatchcase(row.name, options.without)
        ]
        old = options.document.read_text("utf-8")
        options.document.write_text(report.between_markers(old, report.markdown(rows, content)), "utf-8")
    except TesseraError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
