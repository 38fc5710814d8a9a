"""Files that are whole or not there: one line with the SHA-256 of the rest, then canonical JSON."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from placement.codec import canonical_json, parse_json
from tessera.errors import DataLossError, UnavailableError

MAX_FILE_BYTES = 256 << 20


def write_checked(path: Path, content: Any, what: str) -> None:
    """Put `content`, in terms of JSON's types, at `path`; after a crash the old or the new file is there. Blocks.

    Raises:
        UnavailableError: it cannot be written; begins with `what`, names the file and why. The old one is still there.
    """
    body = canonical_json(content)
    try:
        _replace(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    except OSError as error:
        raise UnavailableError(f"{what} {path}: cannot be written: {error.strerror}") from error


def read_checked(path: Path, what: str) -> Any:
    """Return what `write_checked` wrote; None if there is no file. Blocks.

    Raises:
        DataLossError: it is damaged or larger than 256 MiB; begins with `what` and names the file.
        UnavailableError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataLossError(f"{what} {path}: larger than {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"{what} {path}: cannot be read: {error.strerror}") from error
    digest, _, body = data.partition(b"\n")
    found = hashlib.sha256(body).hexdigest().encode()
    if digest != found:
        raise DataLossError(f"{what} {path}: damaged: states digest {digest[:64]!r}, has {found!r}")
    return parse_json(body, f"{what} {path}")


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after a crash there is the old or the new content, never a part."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
