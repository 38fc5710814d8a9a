"""`python -m shard_server`: runs one shard server until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import sys

from shard_server.memory import limit_address_space
from shard_server.settings import ShardServerSettings
from tessera.errors import SettingsError
from tessera.process import (
    exit_on_settings_error,
    remove_ready_file,
    run_until_signal,
    started_before,
    write_ready_file,
)
from tessera.settings import load
from tessera.telemetry import set_up_logging


def main() -> int:
    """Return the exit code."""
    try:
        settings = load(ShardServerSettings, "shard_server", sys.argv[1:], description=__doc__ or "")
    except SettingsError as error:
        return exit_on_settings_error("shard_server", error)
    set_up_logging(settings.log_format, settings.log_level)
    if settings.memory_limit_bytes:
        limit_address_space(settings.memory_limit_bytes)

    async def serve(stop: asyncio.Event) -> None:
        from placement.connect import connect  # after the limit, because importing gRPC reserves address space
        from shard_server.server import ShardServer

        store = connect(settings)
        try:
            server = ShardServer(settings, store)
            if await started_before(stop, server.start()):
                addresses = {"address": server.address, "metrics": server.metrics_address}
                write_ready_file(settings.ready_file, {**addresses, "pid": os.getpid()})
                await stop.wait()
                remove_ready_file(settings.ready_file)
            await server.drain()
        finally:
            await store.close()

    return run_until_signal(serve)


if __name__ == "__main__":
    sys.exit(main())
