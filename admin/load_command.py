"""`tessera model load`: gives a model its first placement on a running cluster."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from admin.arguments import add_cluster, add_output
from admin.loading import load, parse_label, plan, wanted_models
from admin.output import show
from admin.progress import say
from admin.stores import open_store
from admin.table import render
from placement.operation import LoadResult
from placement.plan import Plan
from tessera.repository import Repository
from tessera.settings import format_bytes


def add_to(model_verbs: Any) -> None:
    """Add the verb below `tessera model`."""
    parser = model_verbs.add_parser(
        "load", help="place a model on the servers and make it current", description=__doc__
    )
    parser.add_argument("model", metavar="NAME[:VERSION,…]", help="model, at its latest version or at those given")
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages and blobs")
    parser.add_argument("--replicas", type=int, default=1, help="servers that hold each slot (default: %(default)s)")
    parser.add_argument(
        "--label", action="append", default=[], metavar="LABEL=VERSION", help="name that requests may use for a version"
    )
    parser.add_argument("--min-servers", type=int, default=1, help="wait for so many servers (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="for everything, seconds (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")
    add_cluster(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Load, or only plan, and say what was done."""
    repository = Repository(options.repository)
    ((model, versions),) = wanted_models(repository, [options.model]).items()
    labels = dict(parse_label(text, versions) for text in options.label)

    async def main() -> None:
        store = open_store(options)
        try:
            wanted = (store, options.cluster, repository, model, versions)
            if options.dry_run:
                _show_plan(options, model, await plan(*wanted, replicas=options.replicas, labels=labels))
                return
            result = await load(
                *wanted,
                replicas=options.replicas,
                timeout_s=options.timeout_s,
                labels=labels,
                min_servers=options.min_servers,
                say=say,
            )
            _show_result(options, model, result)
        finally:
            await store.close()

    asyncio.run(main())


def _show_plan(options: argparse.Namespace, model: str, plan: Plan | None) -> None:
    if plan is None:
        show(options, {"model": model, "changed": False, "servers": []}, f"model {model}: nothing to change")
        return
    rows = [
        {"id": row.id, "slots": row.slots_after, "bytes": row.bytes_after, "limit_bytes": row.limit_bytes}
        for row in plan.servers
    ]
    table = render(
        ("SERVER", "SLOTS", "BYTES", "LIMIT"),
        [
            (
                row.id,
                row.slots_after,
                format_bytes(row.bytes_after),
                format_bytes(row.limit_bytes) if row.limit_bytes is not None else "-",
            )
            for row in plan.servers
        ],
        right=("SLOTS", "BYTES", "LIMIT"),
    )
    epoch, slots = plan.placement.epoch, len(plan.placement.slot_servers)
    head = f"model {model}: would make epoch {epoch} current, {slots} slots on {len(plan.placement.servers)} servers"
    show(
        options, {"model": model, "changed": True, "epoch": epoch, "slots": slots, "servers": rows}, f"{head}\n{table}"
    )


def _show_result(options: argparse.Namespace, model: str, result: LoadResult) -> None:
    placement = result.placement
    servers = f"on {len(placement.servers)} servers" if placement.servers else "in the root alone"
    done = "is current" if result.changed else "was current already"
    content = {"model": model, "changed": result.changed, "epoch": placement.epoch, "servers": list(placement.servers)}
    show(options, content, f"model {model}: epoch {placement.epoch} {done}, {servers}")
