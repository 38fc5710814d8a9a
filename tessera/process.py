"""The frame of a serving process: signals, exit codes, the ready file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tessera.errors import FailedPreconditionError, SettingsError, TesseraError

_log = logging.getLogger("tessera.process")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: starting again as it is does not help


def run_until_signal(
    serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]], on_error: Callable[[TesseraError], int] | None = None
) -> int:
    """Run `serve(stop)` and return the exit code; SIGTERM and SIGINT set `stop`, then `serve` must drain and return.

    A second signal ends the process at once. A FailedPreconditionError (a duplicate id, say) gives 78, other errors of
    Tessera 1; both are logged in one line. With `on_error`, it is told of the error and decides about the exit code.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop, number)
        await serve(stop)

    try:
        asyncio.run(main())
    except TesseraError as error:
        if on_error is not None:
            return on_error(error)
        _log.error("%s", error.message)
        return EXIT_CONFIG if isinstance(error, FailedPreconditionError) else EXIT_FAILED
    return 0


async def started_before(stop: asyncio.Event, start: Coroutine[Any, Any, None]) -> bool:
    """Run `start` to its end and return True, or cancel it and return False once `stop` is set. Errors pass through."""
    starting = asyncio.create_task(start)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait((starting,))
        return False
    finally:
        stopping.cancel()


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        _log.warning("%s again: ending at once", signal.Signals(number).name)
        os._exit(128 + number)
    _log.info("%s: draining", signal.Signals(number).name)
    stop.set()


def exit_on_settings_error(process: str, error: SettingsError) -> int:
    """Print `error` to stderr as command lines do and return the exit code for it."""
    print(f"{process}: {error.message}\nSee python -m {process} --help.", file=sys.stderr)
    return EXIT_USAGE


def write_ready_file(path: str, content: dict[str, Any]) -> None:
    """Write one line of JSON to `path` so that whoever sees the file sees all of it; an empty path means no file."""
    if path:
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content) + "\n", "utf-8")
        temporary.replace(path)


def remove_ready_file(path: str) -> None:
    """Remove what `write_ready_file` wrote, if it is there."""
    if path:
        Path(path).unlink(missing_ok=True)
