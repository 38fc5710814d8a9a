"""`tessera serve`: `tensorflow_model_server` under another name; its flags are those of `router.tfs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HELP = "serve models with tensorflow_model_server's flags until SIGTERM"


def add_to(verbs: Any) -> None:
    """Add the verb to the help of the command line; its flags are not argparse's."""
    verbs.add_parser("serve", help=HELP, add_help=False)


def run(arguments: Sequence[str]) -> int:
    """Serve; return the exit code."""
    from router.tfs.main import main  # here: other verbs need nothing of it

    return main(arguments)
