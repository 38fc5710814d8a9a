"""Sizes of what lies in a version's directory."""

from __future__ import annotations

from pathlib import Path


def size_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; 0 when it is not there."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
