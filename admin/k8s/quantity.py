"""Amounts as Kubernetes writes them: `64Gi`, `512Mi`."""

from __future__ import annotations

import re

from tessera.errors import SettingsError
from tessera.settings import ByteSize, parse_bytes

_UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def parse_quantity(text: str) -> ByteSize:
    """Return the bytes of `64Gi`, and of `64GiB` too.

    Raises:
        SettingsError: neither; says what was expected.
    """
    binary = re.fullmatch(r"\s*(\d+(?:\.\d+)?[KMGTP]i)\s*", text)
    try:
        return parse_bytes(f"{binary[1]}B" if binary else text)
    except SettingsError:
        raise SettingsError(f"got {text!r}, expected an amount such as 512Mi, 64Gi or 64GiB") from None


def format_quantity(count: int) -> str:
    """Return `count` bytes in the largest unit that leaves a whole number."""
    for unit, size in _UNITS:
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)
