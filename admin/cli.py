"""The `tessera` command: parses the command line, runs one verb, turns errors into exit codes.

stdout carries data, stderr progress and errors. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused
because of the state of things, 5 out of time, 75 overtaken by another command, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from admin import (
    audit_command,
    batch_command,
    cluster_command,
    controller_command,
    explain_command,
    model_command,
    package_commands,
    placement_command,
    predict_command,
    reshard_command,
    serve_command,
    server_command,
    status_command,
    up_command,
)
from admin.k8s import command as k8s_command
from tessera.errors import Code, TesseraError
from tessera.process import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE

_EXIT_CODES = {
    Code.INVALID_ARGUMENT: EXIT_USAGE,
    Code.NOT_FOUND: 3,
    Code.FAILED_PRECONDITION: 4,
    Code.ALREADY_EXISTS: 4,
    Code.DEADLINE_EXCEEDED: 5,
    Code.ABORTED: 75,
}


_VERBS = (
    package_commands,
    batch_command,
    serve_command,
    up_command,
    model_command,
    placement_command,
    reshard_command,
    server_command,
    cluster_command,
    controller_command,
    audit_command,
    predict_command,
    explain_command,
    status_command,
    k8s_command,
)


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags: a flag that is added later must not change what a script means. Verbs inherit it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; each verb adds itself."""
    parser = _Parser(prog="tessera", description="Serves TensorFlow models that are too big for one machine.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in _VERBS:
        module.add_to(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["serve"]:  # takes flags in tensorflow_model_server's syntax
        return serve_command.run(words[1:])
    options = build_parser().parse_args(words)
    try:
        code = options.run(options)
        return int(code or 0)
    except TesseraError as error:
        print(f"tessera: {error.message}", file=sys.stderr)
        return _EXIT_CODES.get(error.code, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, say) has gone
        sys.stderr.close()
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
