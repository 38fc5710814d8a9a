"""Small text files that an operator writes: policies, configurations."""

from __future__ import annotations

from pathlib import Path

from tessera.errors import InvalidArgumentError, NotFoundError

MAX_FILE_BYTES = 16 << 20


def read_text(path: str | Path) -> str:
    """Return the content of a file.

    Raises:
        NotFoundError: it cannot be opened or read; TensorFlow's text.
        InvalidArgumentError: it is over 16 MiB, or not UTF-8; names it.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{path}; {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgumentError(f"{path}: is over {MAX_FILE_BYTES} bytes, expected a small text file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: byte {error.start} is not UTF-8, expected text") from None
