"""Messages as sequences of wire fields, in the ways that no serializer writes but every parser has to read."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5

Bytes = st.SearchStrategy[bytes]


def varint(value: int) -> bytes:
    """Return a varint; negative numbers as int64."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | DELIMITED) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    """Return a varint field."""
    return varint(field << 3 | VARINT) + varint(value)


def unknown() -> Bytes:
    """Fields that the messages do not have, or have with another wire type."""
    fields = st.integers(1, 20)
    return st.one_of(
        st.builds(number, st.sampled_from([1, 2, 3, 4, 9, 900]), st.integers(0, 1 << 40)),
        st.builds(lambda field: varint(field << 3 | FIXED32) + b"abcd", fields),
        st.builds(lambda field: varint(field << 3 | FIXED64) + b"abcdefgh", fields),
        st.builds(delimited, st.integers(30, 40), st.binary(max_size=5)),
    )


def message(*fields: tuple[int, Bytes], max_size: int = 6, with_unknown: bool = True) -> Bytes:
    """Any sequence of the fields (number, payload), unknown ones between them."""
    known = [payload.map(lambda value, field=field: delimited(field, value)) for field, payload in fields]  # type: ignore[misc]
    others = [unknown()] if with_unknown else []
    return st.lists(st.one_of(*known, *known, *others), max_size=max_size).map(b"".join)


def text(values: Sequence[str]) -> Bytes:
    """One of some strings."""
    return st.sampled_from([value.encode() for value in values])
