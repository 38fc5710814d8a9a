"""`tessera model load`: gives a model its first placement on a running cluster."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from admin.arguments import add_cluster
from admin.loading import load, parse_label, wanted_models
from admin.progress import say
from admin.stores import open_store
from placement.operation import LoadResult
from tessera.repository import Repository


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
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Load and say what was done."""
    repository = Repository(options.repository)
    ((model, versions),) = wanted_models(repository, [options.model]).items()
    labels = dict(parse_label(text, versions) for text in options.label)

    async def main() -> LoadResult:
        store = open_store(options)
        try:
            return await load(
                store,
                options.cluster,
                repository,
                model,
                versions,
                replicas=options.replicas,
                timeout_s=options.timeout_s,
                labels=labels,
                min_servers=options.min_servers,
                say=say,
            )
        finally:
            await store.close()

    result = asyncio.run(main())
    servers = f"on {len(result.placement.servers)} servers" if result.placement.servers else "in the root alone"
    done = "is current" if result.changed else "was current already"
    print(f"model {model}: epoch {result.placement.epoch} {done}, {servers}")
