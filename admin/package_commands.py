"""`tessera partition` and `tessera verify`: make a package of a SavedModel, and check one."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admin.arguments import add_output, byte_size
from admin.batch_command import add_partition_options, as_json, partition_options, plan_text
from admin.output import encoded, show
from admin.progress import Progress
from admin.quiet import quiet_tensorflow
from admin.table import render
from tessera.errors import NotFoundError
from tessera.repository import Repository
from tessera.settings import format_bytes

if TYPE_CHECKING:
    from partition import PackagePlan


_REASON_WIDTH = 60


def add_to(verbs: Any) -> None:
    """Add both verbs to the command line."""
    parser = verbs.add_parser(
        "partition", help="make a package of a SavedModel", description="Makes a package of a SavedModel."
    )
    parser.add_argument("saved_model", type=Path, metavar="SAVED_MODEL", help="directory; it is only read")
    _add_package(parser)
    parser.add_argument(
        "--max-shard-bytes",
        type=byte_size,
        required=True,
        metavar="BYTES",
        help="what one server, and the root, may hold at most, for example 256MiB; larger tables are split",
    )
    parser.add_argument("--split", action="append", default=[], metavar="PATTERN", help="split these in any case")
    parser.add_argument("--keep", action="append", default=[], metavar="PATTERN", help="keep these whole in any case")
    parser.add_argument("--signature", action="append", metavar="NAME", help="keep only these (default: all)")
    add_partition_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    add_output(parser)
    parser.set_defaults(run=run_partition)

    parser = verbs.add_parser(
        "verify",
        help="check a package against its SavedModel",
        description="Reads every file of a package through; with --saved-model also compares its answers.",
    )
    _add_package(parser)
    parser.add_argument("--saved-model", type=Path, metavar="DIR", help="what it was made of, to compare answers")
    parser.add_argument("--samples", type=int, default=8, help="generated inputs per signature (default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="largest difference that passes (default: %(default)s, bit for bit)",
    )
    add_output(parser)
    parser.set_defaults(run=run_verify)


def _add_package(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages and blobs")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--version", type=int, default=1, help="version of the model (default: %(default)s)")


def run_partition(options: argparse.Namespace) -> None:
    """Print the plan; write the package unless it is a dry run."""
    target = Repository(options.repository).package_dir(options.model, options.version)  # checks name and version
    quiet_tensorflow()
    import partition

    plan = partition.plan_package(
        options.saved_model,
        max_shard_bytes=options.max_shard_bytes,
        split=options.split,
        keep=options.keep,
        signatures=options.signature,
        batch=partition_options(options),
    )
    digest = None
    if not options.dry_run:
        if options.output == "table":
            print(_plan_text(plan), file=sys.stderr)
        with Progress("partitioning") as progress:
            manifest = partition.write_package(
                plan, Repository(options.repository), model=options.model, version=options.version, progress=progress
            )
        digest = manifest.digest
    if options.output != "table":
        rows = [asdict(row) for row in plan.rows]
        content: dict[str, Any] = {
            "variables": rows,
            "root_bytes": plan.root_bytes,
            "split_bytes": plan.split_bytes,
            "digest": digest,
        }
        if plan.batched is not None:
            content["batching"] = as_json(plan.batched)
        print(encoded(options.output, content))
    elif digest is None:
        print(_plan_text(plan))
    else:
        print(f"{target}\npackage digest {digest}")


def _plan_text(plan: PackagePlan) -> str:
    rows = [
        (
            row.name,
            row.dtype,
            "×".join(str(size) for size in row.shape) or "scalar",
            format_bytes(row.bytes),
            row.decision,
            row.buckets or "-",
            format_bytes(row.bucket_bytes) if row.buckets else "-",
            textwrap.shorten(row.reason, _REASON_WIDTH, placeholder=" …"),
        )
        for row in plan.rows
    ]
    table = render(
        ("VARIABLE", "DTYPE", "SHAPE", "BYTES", "GOES TO", "BUCKETS", "BUCKET", "WHY"),
        [(*row[:4], "shards" if row[4] == "split" else row[4], *row[5:]) for row in rows],
        right=("BYTES", "BUCKETS", "BUCKET"),
    )
    sums = f"root {format_bytes(plan.root_bytes)}, shards {format_bytes(plan.split_bytes)} in all"
    text = f"{table}\n{sums}, limit {format_bytes(plan.max_shard_bytes)}"
    return text if plan.batched is None else f"{text}\n\n{plan_text(plan.batched)}"


def run_verify(options: argparse.Namespace) -> int:
    """Check the files, then the answers; return 1 if the answers differ by more than the tolerance."""
    repository = Repository(options.repository)
    if options.saved_model is None:
        return _verify_files(repository, options)
    if not options.saved_model.is_dir():
        raise NotFoundError(f"--saved-model {options.saved_model}: no such directory")
    quiet_tensorflow()
    import partition

    report = partition.verify_package(
        options.saved_model, repository, options.model, options.version, samples=options.samples
    )
    same = report.max_abs_difference <= options.tolerance
    if options.output != "table":
        print(encoded(options.output, asdict(report) | {"same": same}))
        return 0 if same else 1
    rows = [
        (out.signature, out.output, "yes" if out.bit_equal else "no", f"{out.max_abs_difference:.3g}")
        for out in report.outputs
    ]
    print(render(("SIGNATURE", "OUTPUT", "BIT-EQUAL", "LARGEST DIFFERENCE"), rows, right=("LARGEST DIFFERENCE",)))
    print(
        f"{report.blobs} blobs with {format_bytes(report.bytes)} are whole; "
        f"{sum(report.samples.values())} inputs answered by both, {sum(report.refused.values())} refused by both: "
        f"{'same' if same else 'DIFFERENT'}"
    )
    return 0 if same else 1


def _verify_files(repository: Repository, options: argparse.Namespace) -> int:
    manifest = repository.read_manifest(options.model, options.version)
    repository.verify_files(manifest)
    sizes = manifest.blob_sizes()
    total = sum(sizes.values())
    done = 0
    with Progress("verifying") as progress:
        for digest, size in sizes.items():
            repository.verify_blob(digest, size)
            done += size
            progress(done, total)
    content = {"digest": manifest.digest, "blobs": len(sizes), "bytes": total}
    show(options, content, f"{len(sizes)} blobs with {format_bytes(total)} are whole; package digest {manifest.digest}")
    return 0
