"""What a process answers over HTTP when it is asked whether it lives and is ready; on every port the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

LIVE_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"


def live() -> tuple[int, bytes]:
    """Return the HTTP status and the JSON body for `LIVE_PATH`: whoever can answer, lives."""
    return 200, b'{"status": "alive"}'


def ready(missing: Sequence[str]) -> tuple[int, bytes]:
    """Return the HTTP status and the JSON body for `READY_PATH`.

    Args:
        missing: what keeps the process from being ready, one short text each; empty when it is ready.
    """
    content = {"status": "not ready" if missing else "ready", "missing": list(missing)}
    return 503 if missing else 200, json.dumps(content).encode()
