"""TFRecord files: what is written is read, and damage is found."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.tfrecord import frame, read_records
from tessera.errors import DataLossError

_RECORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


def _read(data: bytes) -> list[bytes]:
    return list(read_records(io.BytesIO(data), "log"))


def test_the_bytes_of_a_record() -> None:
    # Written by tf.io.TFRecordWriter.
    assert frame(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


@given(_RECORDS)
def test_what_is_written_is_read(records: list[bytes]) -> None:
    assert _read(b"".join(map(frame, records))) == records


@given(_RECORDS, st.data())
def test_every_damage_is_found(records: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, records))
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DataLossError, match="record at"):
        _read(bytes(damaged))


@given(_RECORDS, st.data())
def test_a_file_that_ends_early_is_read_up_to_there(records: list[bytes], data: st.DataObject) -> None:
    parts = [frame(record) for record in records]
    cut = data.draw(st.integers(1, len(parts[-1]) - 1))
    reader = read_records(io.BytesIO(b"".join(parts)[:-cut]), "log")
    assert [next(reader) for _ in records[:-1]] == records[:-1]
    with pytest.raises(DataLossError, match=f"truncated record at {sum(map(len, parts[:-1]))}"):
        next(reader)
