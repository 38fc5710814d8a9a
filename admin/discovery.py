"""Where a `tessera up` of this user left its addresses, so that other verbs need no flags."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tessera.errors import TesseraError
from tessera.process import write_ready_file


def run_dir() -> Path:
    """Return this user's private directory for running clusters, created if need be.

    Raises:
        TesseraError: it belongs to somebody else, or is a link.
    """
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"tessera-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink():
        raise TesseraError(f"{path}: is a symbolic link, expected a directory")
    if path.stat().st_uid != os.getuid():
        raise TesseraError(f"{path}: belongs to another user")
    return path


def announce(cluster: str, content: dict[str, Any]) -> None:
    """Let other verbs find the `tessera up` of this process; `withdraw` ends that."""
    content["pids"]["up"] = os.getpid()
    write_ready_file(str(_path(cluster)), content)


def withdraw(cluster: str) -> None:
    """Forget what `announce` wrote, if it did."""
    _path(cluster).unlink(missing_ok=True)


def running_cluster(cluster: str) -> dict[str, Any] | None:
    """Return what the running `tessera up` of `cluster` wrote, or None if there is none (any more)."""
    try:
        content = json.loads(_path(cluster).read_text("utf-8"))
        os.kill(content["pids"]["up"], 0)
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):  # ended, or cut off
        return None
    assert isinstance(content, dict)
    return content


def _path(cluster: str) -> Path:
    return run_dir() / f"up-{cluster}.json"
