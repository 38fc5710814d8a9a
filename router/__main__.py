"""`python -m router`: runs one router until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from router.batch_policies import check_policy_file
from router.settings import RouterSettings
from tessera.errors import SettingsError
from tessera.process import exit_on_settings_error, run_until_signal, started_before, write_ready_file
from tessera.settings import load
from tessera.telemetry import set_up_logging


def main() -> int:
    """Return the exit code."""
    try:
        settings = load(RouterSettings, "router", sys.argv[1:], description=__doc__ or "")
        check_policy_file(settings)
    except SettingsError as error:
        return exit_on_settings_error("router", error)
    set_up_logging(settings.log_format, settings.log_level)

    # TensorFlow reads this when its libraries are loaded, which importing the server does.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1" if settings.onednn else "0"

    async def serve(stop: asyncio.Event) -> None:
        from placement.connect import connect  # here, so that --help does not load TensorFlow's libraries
        from router.server import Router

        store = connect(settings) if settings.etcd else None
        try:
            router = Router(settings, store)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, router.reread_policies)
            if await started_before(stop, router.start()):
                ready = {"address": router.address, "metrics": router.metrics_address, "pid": os.getpid()}
                write_ready_file(settings.ready_file, ready)
                await stop.wait()
            await router.drain()
        finally:
            if store is not None:
                await store.close()

    return run_until_signal(serve)


if __name__ == "__main__":
    sys.exit(main())
