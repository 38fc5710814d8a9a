"""Golden files: texts that may only change on purpose."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare `text` with tests/golden/`name`; with TESSERA_RENEW_GOLDEN=1 in the environment, write it first."""
    path = GOLDEN / name
    if os.environ.get("TESSERA_RENEW_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"{path.name} differs; TESSERA_RENEW_GOLDEN=1 renews it if that is meant"
