"""`tessera controller`: goes on with changes whose command has died, or did not wait, until SIGTERM.

Run one or more beside the cluster; one of them is elected. It begins nothing by itself, leaves alone what is paused or
held, and gives way to an operator's command.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from admin.arguments import add_cluster
from admin.loading import owner
from admin.stores import open_store
from placement.controller import Controller
from placement.keys import Keys
from placement.tasks import end
from tessera.process import run_until_signal
from tessera.telemetry import set_up_logging


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "controller", help="carry on changes whose command has died, until SIGTERM", description=__doc__
    )
    add_cluster(parser)
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="form of the log lines")
    parser.add_argument(
        "--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO",
        help="least severity that is logged (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run until a signal; return the exit code."""
    set_up_logging(options.log_format, options.log_level)

    async def serve(stop: asyncio.Event) -> None:
        store = open_store(options)
        try:
            controller = Controller(store, Keys(options.cluster), owner=f"controller {owner()}")
            running = asyncio.create_task(controller.run(), name="controller")
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await end(running)
        finally:
            await store.close()

    return run_until_signal(serve)
