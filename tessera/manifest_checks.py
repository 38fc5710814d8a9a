"""Checks of the manifest's fields, and a strict reader of JSON objects.

Every function raises `InvalidArgumentError` with the name of the field, what was given and what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tessera.errors import InvalidArgumentError

T = TypeVar("T")

MAX_INT64 = (1 << 63) - 1

# Bytes of one element, by numpy-style name (TensorFlow's own names for what numpy lacks).
ITEM_BYTES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8", "float8_e5m2", "float8_e4m3fn"), 1),
    **dict.fromkeys(("int16", "uint16", "qint16", "quint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "qint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
UNSIZED_DTYPES = frozenset({"string"})

# A leading dot is kept for what is being written, and would allow "." and "..".
_MODEL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_model(model: str) -> str:
    """Return `model` if it can be the name of a model."""
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise InvalidArgumentError(
            f"model: got {model!r}, expected 1 to 128 of A-Z a-z 0-9 . _ - that do not begin with a dot"
        )
    return model


def check_version(version: int) -> int:
    """Return `version` if it can be the version of a model."""
    return check_integer(version, "version", low=0, high=MAX_INT64)


def check_digest(digest: str, what: str) -> str:
    """Return `digest` if it is a SHA-256 in lower-case hexadecimal."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidArgumentError(f"{what}: got {digest!r}, expected a SHA-256 as 64 lower-case hexadecimal digits")
    return digest


def check_integer(value: int, what: str, *, low: int, high: int = MAX_INT64) -> int:
    """Return `value` if it is an integer from `low` to `high`, both included."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidArgumentError(f"{what}: got {value!r}, expected an integer from {low} to {high}")
    return value


def check_text(value: str, what: str, *, may_be_empty: bool = False) -> str:
    """Return `value` if it is text."""
    if not isinstance(value, str) or not (value or may_be_empty) or "\0" in value:
        raise InvalidArgumentError(f"{what}: got {value!r}, expected text without zero bytes")
    return value


def check_dtype(dtype: str, what: str, *, sized: bool) -> str:
    """Return `dtype` if it is the name of an element type; with `sized`, of one whose elements have a fixed size."""
    if dtype not in ITEM_BYTES and (sized or dtype not in UNSIZED_DTYPES):
        known = sorted(ITEM_BYTES) + ([] if sized else sorted(UNSIZED_DTYPES))
        raise InvalidArgumentError(f"{what}: got {dtype!r}, expected one of {', '.join(known)}")
    return dtype


def check_shape(shape: tuple[int, ...], what: str, *, low: int = 0) -> tuple[int, ...]:
    """Return `shape` if it is a tuple of dimensions of at least `low`."""
    if not isinstance(shape, tuple):
        raise InvalidArgumentError(f"{what}: got {shape!r}, expected a tuple of integers")
    for axis, size in enumerate(shape):
        check_integer(size, f"{what}[{axis}]", low=low)
    return shape


def check_relative_path(path: str, what: str) -> str:
    """Return `path` if it names a file below the directory that it is relative to, with `/` between the parts."""
    parts = check_text(path, what).split("/")
    if "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidArgumentError(f"{what}: got {path!r}, expected a relative path without empty, . or .. parts")
    return path


def check_unique(values: Iterable[str], what: str) -> None:
    """Refuse a value that occurs twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise InvalidArgumentError(f"{what}: {value!r} occurs twice, expected each once")
        seen.add(value)


class Fields:
    """The entries of a JSON object, each to be taken exactly once."""

    def __init__(self, value: Any, what: str) -> None:
        """`what` names the object in messages."""
        if not isinstance(value, dict):
            raise InvalidArgumentError(f"{what}: got {type(value).__name__}, expected an object")
        self._entries: dict[str, Any] = dict(value)
        self._what = what

    def peek(self, name: str) -> Any:
        """Return an entry without taking it."""
        if name not in self._entries:
            raise InvalidArgumentError(f"{self._what}: {name}: is missing")
        return self._entries[name]

    def take(self, name: str, kind: type[T]) -> T:
        """Take an entry of type `kind`."""
        value = self.peek(name)
        if type(value) is not kind:  # not isinstance: true is no integer
            raise InvalidArgumentError(f"{self._what}: {name}: got {value!r}, expected {kind.__name__}")
        del self._entries[name]
        return value

    def take_tuple(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """Take a list of `kind`."""
        values = self.take(name, list)
        for position, value in enumerate(values):
            if type(value) is not kind:
                raise InvalidArgumentError(f"{self._what}: {name}[{position}]: got {value!r}, expected {kind.__name__}")
        return tuple(values)

    def take_tuple_or_null(self, name: str, kind: type[T]) -> tuple[T, ...] | None:
        """Take a list of `kind`, or null."""
        return self.take(name, type(None)) if self.peek(name) is None else self.take_tuple(name, kind)

    def take_texts(self, name: str) -> dict[str, str]:
        """Take an object whose values are texts."""
        inner = Fields(self.take(name, dict), f"{self._what}: {name}")
        return {key: inner.take(key, str) for key in list(inner._entries)}

    def take_objects(self, name: str) -> Iterator[Fields]:
        """Take a list of objects; each must be taken completely before the next."""
        return self._complete((f"{name}[{i}]", value) for i, value in enumerate(self.take(name, list)))

    def take_object_map(self, name: str) -> Iterator[tuple[str, Fields]]:
        """Take an object of objects; each must be taken completely before the next."""
        entries = self.take(name, dict)
        return zip(entries, self._complete((f"{name}.{key}", value) for key, value in entries.items()), strict=True)

    def _complete(self, values: Iterable[tuple[str, Any]]) -> Iterator[Fields]:
        for name, value in values:
            fields = Fields(value, f"{self._what}: {name}")
            yield fields
            fields.end()

    def end(self) -> None:
        """Refuse entries that nobody took."""
        if self._entries:
            raise InvalidArgumentError(f"{self._what}: unknown fields {', '.join(sorted(self._entries))}")
