"""Frozen dataclasses ↔ canonical JSON (sorted keys, no spaces), by their type hints.

Reading tolerates fields that it does not know (a newer minor version wrote them) and refuses what is missing (unless
older releases did not write it: `ADDED_LATER`) or has the wrong type, with the name of key and field. Types that a
field may have: str, int, bool, an enum of strings, `Mapping[str, T]`, `tuple[T, ...]` and another record.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar, cast, get_args, get_origin

from tessera.errors import DataLossError, InvalidArgumentError

T = TypeVar("T")

ADDED_LATER: Mapping[str, bool] = MappingProxyType({"added_later": True})
"""Metadata of a field that records of older releases lack: it is read as its default, which means what they did."""


class Record:
    """Base of everything that is stored: `to_bytes` and `from_bytes`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of this record."""
        return canonical_json(to_json(self))

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Self:
        """Read what `to_bytes` wrote.

        Args:
            data: the stored value.
            key: where it was found, for messages.

        Raises:
            DataLossError: not JSON, or a field is missing or wrong; names key and field.
        """
        return from_json(cls, parse_json(data, key), key)


def canonical_json(value: Any) -> bytes:
    """Return the one byte string that stands for `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_json(data: bytes, key: str) -> Any:
    """Return the JSON value in `data`.

    Raises:
        DataLossError: it is not JSON; names the key.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataLossError(f"{key}: not JSON: {error}") from error


def to_json(value: Any) -> Any:
    """Return `value` in terms of JSON's types."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], raw: Any, where: str) -> T:
    """Return the record of type `cls` that `raw` describes.

    Raises:
        DataLossError: a field is missing or wrong; names `where` and the field.
    """
    if not isinstance(raw, dict):
        raise DataLossError(f"{where}: got {type(raw).__name__}, expected an object")
    values = {}
    for name, hint in _hints(cast(Hashable, cls)).items():
        if name not in raw:
            if name in _added_later(cast(Hashable, cls)):
                continue
            raise DataLossError(f"{where}: field {name}: missing")
        values[name] = _value(hint, raw[name], f"{where}: field {name}")
    try:
        return cls(**values)
    except InvalidArgumentError as error:
        raise DataLossError(f"{where}: {error.message}") from error


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    assert isinstance(cls, type)
    assert is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


@cache
def _added_later(cls: Hashable) -> frozenset[str]:
    assert is_dataclass(cls)
    return frozenset(field.name for field in fields(cls) if field.metadata == ADDED_LATER)


def _value(hint: Any, raw: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is tuple and isinstance(raw, list):
        return tuple(_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
    if origin is Mapping and isinstance(raw, dict):
        item_hint = get_args(hint)[1]
        return MappingProxyType({name: _value(item_hint, item, f"{where}.{name}") for name, item in raw.items()})
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, raw, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if raw in [member.value for member in hint]:
            return hint(raw)
        raise DataLossError(f"{where}: got {raw!r}, expected one of {', '.join(member.value for member in hint)}")
    if hint in (str, int, bool) and type(raw) is hint:
        return raw
    raise DataLossError(f"{where}: got {str(raw)[:80]!r}, expected {getattr(hint, '__name__', None) or hint}")
