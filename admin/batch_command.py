"""`tessera batch plan` and `tessera batch apply`: find the part of a SavedModel that is worth batching, and mark it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admin.arguments import add_output
from admin.output import encoded, show
from admin.quiet import quiet_tensorflow
from admin.table import render
from tessera.errors import InvalidArgumentError

if TYPE_CHECKING:
    from batching.search import Batched, LeftOut, RegionRow
    from partition import BatchOptions

_NAMES_SHOWN = 6
_WIDTH = 120


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "batch",
        help="find and mark the parts of a SavedModel that are worth batching",
        description="Finds the parts of a SavedModel that act row by row and are worth running once for many requests.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    plan = actions.add_parser(
        "plan",
        help="print what would be batched, and why the rest would not",
        description="Prints the regions of a SavedModel, what they take, the decision, and why the rest is left out. "
        "Writes nothing.",
    )
    _add_common(plan)
    plan.set_defaults(run=run_plan)
    apply = actions.add_parser(
        "apply",
        help="write a SavedModel with the regions marked",
        description="Writes a SavedModel with a TesseraBatch and a TesseraUnbatch around each region that is worth it. "
        "Tessera serves it as any SavedModel; plain TensorFlow loads it after batching.load_op_library(). It holds a "
        "graph with init and restore ops, as TF1 writes them, and no Python objects: its signatures can be called, but "
        "it cannot be trained. Answers are compared before it is written.",
    )
    _add_common(apply)
    apply.add_argument("out", type=Path, metavar="OUT", help="directory to write; must not exist")
    apply.set_defaults(run=run_apply)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("saved_model", type=Path, metavar="SAVED_MODEL", help="directory; it is only read")
    parser.add_argument("--signature", action="append", metavar="NAME", help="only these signatures (default: all)")
    _add_choice(parser, "--", "")
    add_output(parser)


def add_partition_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags with which `tessera partition` does the same on its way."""
    parser.add_argument(
        "--batch",
        choices=("none", "auto"),
        default="none",
        help="auto: mark the parts that are worth batching, as `tessera batch plan` shows them (default: %(default)s)",
    )
    _add_choice(parser, "--batch-", "with --batch auto: ")


def _add_choice(parser: argparse.ArgumentParser, prefix: str, when: str) -> None:
    """Add the flags that say which regions are marked."""
    parser.add_argument(
        f"{prefix}scope",
        action="append",
        default=[],
        metavar="GLOB[,GLOB]",
        help=f"{when}only ops with such names; one that does not act row by row is refused (default: all that do)",
    )
    parser.add_argument(
        f"{prefix}cost-gate",
        choices=("on", "off"),
        default="on",
        help=f"{when}off: mark also what batching would slow down (default: %(default)s)",
    )


def partition_options(options: argparse.Namespace) -> BatchOptions | None:
    """Return what the flags of `add_partition_options` say; None: no batching.

    Raises:
        InvalidArgumentError: a flag needs --batch auto.
    """
    from partition import BatchOptions

    if options.batch == "none":
        if options.batch_scope or options.batch_cost_gate != "on":
            raise InvalidArgumentError("--batch-scope and --batch-cost-gate: got --batch none, expected --batch auto")
        return None
    return BatchOptions(scopes=_scopes(options.batch_scope), gate=options.batch_cost_gate == "on")


def _scopes(values: list[str]) -> tuple[str, ...]:
    return tuple(scope for value in values for scope in value.split(",") if scope)


def _options(options: argparse.Namespace) -> BatchOptions:
    from partition import BatchOptions

    return BatchOptions(
        scopes=_scopes(options.scope),
        gate=options.cost_gate == "on",
        signatures=None if options.signature is None else tuple(options.signature),
    )


def run_plan(options: argparse.Namespace) -> None:
    """Print the regions and the rest."""
    quiet_tensorflow()
    import partition

    batched = partition.plan_batches(options.saved_model, _options(options))
    show(options, as_json(batched), plan_text(batched))


def run_apply(options: argparse.Namespace) -> None:
    """Write the SavedModel and print what is in it."""
    quiet_tensorflow()
    import partition

    batched = partition.write_batched_model(options.saved_model, options.out, _options(options))
    if options.output != "table":
        print(encoded(options.output, as_json(batched)))
        return
    print(plan_text(batched), file=sys.stderr)
    print(options.out)


def as_json(batched: Batched) -> dict[str, Any]:
    """Return the regions and the rest for programs."""
    return {
        "regions": [asdict(row) for row in batched.regions],
        "left_out": [asdict(row) for row in batched.left_out],
        "refused": dict(batched.refused),
    }


def plan_text(batched: Batched) -> str:
    """Return the regions and the rest for people."""
    parts = [_regions_text(batched)] if batched.regions else ["no regions"]
    parts += [f"signature {name}: refused: {reason}" for name, reason in batched.refused.items()]
    parts += [_region_text(row) for row in batched.regions]
    if batched.left_out:
        parts.append("left out:\n" + "\n".join(_left_out_text(row) for row in batched.left_out))
    return "\n\n".join(parts)


def _regions_text(batched: Batched) -> str:
    def micros(row: RegionRow, rows: int) -> str:
        return f"{row.cost_micros[rows]:.0f}" if rows in row.cost_micros else "-"

    counts = sorted({rows for row in batched.regions for rows in row.cost_micros})
    columns = [f"{rows} ROW{'S' * (rows > 1)} µs" for rows in counts]
    rows = [
        (
            row.name,
            ",".join(row.signatures),
            sum(row.ops.values()),
            *(micros(row, count) for count in counts),
            "batched" if row.inserted else "left out",
            row.reason,
        )
        for row in batched.regions
    ]
    header = ("REGION", "SIGNATURES", "OPS", *columns, "DECISION", "WHY")
    return render(header, rows, right=("OPS", *columns))


def _region_text(row: RegionRow) -> str:
    ops = ", ".join(f"{count} {op}" for op, count in row.ops.items())
    lines = [f"{row.name}: {ops}"]
    for what, tensors in (("in", row.inputs), ("out", row.outputs)):
        lines += [f"  {what:<4}{tensor.name}  {tensor.dtype}{tensor.shape}" for tensor in tensors]
    return "\n".join(lines)


def _left_out_text(row: LeftOut) -> str:
    names = list(row.ops[:_NAMES_SHOWN])
    more = len(row.ops) - len(names)
    where = f" (in {row.where})" if row.where else ""
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    return textwrap.fill(f"{row.reason}{where}: {listed}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
