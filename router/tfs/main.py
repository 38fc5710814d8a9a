"""`tensorflow_model_server`, and `tessera serve`: a router with TensorFlow Serving's flags.

What it prints and how it exits is as there: usage and why it does not start on stdout, with exit code 255; all else on
stderr.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

from router.start import run
from router.tfs.config_files import TextProtoError
from router.tfs.flag_table import TABLE
from router.tfs.flags import parse_flags, usage, warnings_of
from router.tfs.own_flags import own_flags
from router.tfs.translate import Launch, translate
from tessera.errors import TesseraError
from tessera.telemetry import set_up_logging

PROGRAM = "tensorflow_model_server"
EXIT_FAILED = 255

_log = logging.getLogger("router.tfs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) until SIGTERM; return the exit code."""
    table = (*TABLE, *own_flags())
    parsed = parse_flags(table, sys.argv[1:] if argv is None else argv)
    if "--help" in parsed.unknown:
        print(usage(table, PROGRAM), end="")
        return 0
    for error in parsed.errors:
        print(error, file=sys.stderr)
    if parsed.errors:
        print(usage(table, PROGRAM), end="")
        return EXIT_FAILED
    if parsed.given.get("version"):
        print(f"TensorFlow ModelServer: tessera {version('tessera-serving')}")
        print(f"TensorFlow Library: {version('tensorflow')}")
        return 0
    if parsed.unknown:
        print("".join(f"unknown argument: {argument}\n" for argument in parsed.unknown) + usage(table, PROGRAM), end="")
        sys.stdout.flush()
    told: list[str] = []  # until it is known how logs look
    try:
        launch = translate(parsed, told.append)
    except TesseraError as error:
        return failed(error)
    set_up_logging(launch.settings.log_format, launch.settings.log_level)
    for warning in (*warnings_of(table, parsed), *told):
        _log.warning("%s", warning)
    return serve(launch)


def serve(launch: Launch) -> int:
    """Run a router until SIGTERM; return the exit code."""
    return run(launch.settings, certificates=launch.certificates, policies=launch.policies, on_error=failed)


def failed(error: TesseraError) -> int:
    """Say why the server does not start, where and as tensorflow_model_server says it; return the exit code."""
    if isinstance(error, TextProtoError):
        print(error.detail, file=sys.stderr)
    print(f"Failed to start server. Error: {error.code.name}: {error.message}", flush=True)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
