"""Runs one router until a signal ends it: what `python -m router` and `tensorflow_model_server` share."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from router.batch_policies import PolicySource
from router.settings import RouterSettings
from tessera.certificates import CertificateSource
from tessera.errors import TesseraError
from tessera.process import remove_ready_file, run_until_signal, started_before, write_ready_file


def run(
    settings: RouterSettings,
    *,
    certificates: CertificateSource | None = None,
    policies: PolicySource | None = None,
    on_error: Callable[[TesseraError], int] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, drain, return the exit code.

    Args:
        settings: of the router.
        certificates: of gRPC, where the settings name no files.
        policies: of batches, where the settings name no file.
        on_error: what is done with an error of the start, and the exit code; None: it is logged, see
            `run_until_signal`.
    """
    # TensorFlow reads this when its libraries are loaded, which importing the server does.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1" if settings.onednn else "0"

    async def serve(stop: asyncio.Event) -> None:
        from placement.connect import connect  # here, so that --help does not load TensorFlow's libraries
        from router.server import Router

        def tell_ready(ready: bool) -> None:
            if ready:
                write_ready_file(settings.ready_file, {**router.addresses, "pid": os.getpid()})
            else:
                remove_ready_file(settings.ready_file)

        store = connect(settings) if settings.etcd else None
        try:
            router = Router(settings, store, certificates=certificates, policy_file=policies, tell_ready=tell_ready)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, router.reread_policies)
            if await started_before(stop, router.start()):
                await stop.wait()
            await router.drain()
        finally:
            if store is not None:
                await store.close()

    return run_until_signal(serve, on_error)
