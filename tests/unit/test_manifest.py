from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.errors import DataLossError, InvalidArgumentError, TesseraError
from tessera.manifest import FileRef, Manifest, Signature, Table, TensorSpec, Weight
from tessera.manifest_checks import ITEM_BYTES

DIGEST = "ab" * 32

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
names = texts.filter(bool)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rows = draw(st.integers(1, 200))
    buckets = draw(st.integers(0, (rows - 1) // 2)) * 2 + 1
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
    row_bytes = ITEM_BYTES[dtype]
    for size in shape:
        row_bytes *= size
    # The number in front makes digests of different sizes different.
    blobs = tuple(f"{row_bytes:08x}{rows:08x}{buckets:08x}{bucket:040x}" for bucket in range(buckets))
    return Table(draw(names), rows, shape, dtype, row_bytes, buckets, blobs)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    specs = st.builds(
        TensorSpec,
        names,
        st.sampled_from(["string", "int64", "float32"]),
        st.none() | st.lists(st.integers(-1, 5), max_size=3).map(tuple),
    )
    return Manifest(
        model=draw(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True)),
        version=draw(st.integers(0, 2**63 - 1)),
        tables=tuple(draw(st.lists(tables(), max_size=3, unique_by=lambda table: table.name))),
        weights=tuple(
            Weight(name, "float32", (2, size), f"{size:064x}", 8 * size)
            for name, size in draw(st.dictionaries(names, st.integers(1, 9), max_size=3)).items()
        ),
        signatures=draw(
            st.dictionaries(
                names, st.builds(Signature, names, st.dictionaries(names, specs), st.dictionaries(names, specs))
            )
        ),
        files=(FileRef("saved_model.pb", draw(digests), draw(st.integers(0, 9))),),
        source={"fingerprint": draw(digests)},
        tools=draw(st.dictionaries(names, texts)),
    )


@given(manifests())
@settings(max_examples=60, deadline=None)
def test_reading_gives_what_was_written(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    again = Manifest.from_bytes(data)
    assert again == manifest
    assert again.to_bytes() == data
    assert again.digest == manifest.digest == json.loads(data)["digest"]


@given(tables())
def test_buckets_share_out_all_rows(table: Table) -> None:
    assert sum(map(table.bucket_rows, range(table.buckets))) == table.rows
    assert sum(map(table.bucket_bytes, range(table.buckets))) == table.bytes
    for bucket in range(table.buckets):
        assert table.bucket_rows(bucket) == len(range(bucket, table.rows, table.buckets))


def example() -> Manifest:
    return Manifest(
        model="m",
        version=3,
        tables=(Table("t", 10, (3,), "float32", 12, 3, (DIGEST[:-1] + "0", DIGEST[:-1] + "1", DIGEST[:-1] + "2")),),
        weights=(Weight("w", "bfloat16", (2, 2), DIGEST, 8),),
        signatures={"s": Signature("predict", {"x": TensorSpec("x:0", "int64", (-1,))}, {})},
        files=(FileRef("assets/words.txt", DIGEST, 8),),
    )


@given(st.data())
def test_one_changed_byte_is_refused(data: st.DataObject) -> None:
    good = example().to_bytes()
    position = data.draw(st.integers(0, len(good) - 2))  # the last byte is the newline
    bad = bytearray(good)
    bad[position] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    try:
        read = Manifest.from_bytes(bytes(bad))
    except TesseraError:
        return
    assert read == example()  # a space became another space, say


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_cut_document_is_refused(size: int) -> None:
    with pytest.raises(DataLossError):
        Manifest.from_bytes(example().to_bytes()[:size])


def document(**changes: Any) -> bytes:
    """Return the example with changes and a right digest."""
    raw = json.loads(example().to_bytes())
    raw.pop("digest")
    raw.update(changes)
    text = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(raw | {"digest": hashlib.sha256(text).hexdigest()}).encode()


TABLE = json.loads(example().to_bytes())["tables"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"extra": 1}, "unknown fields extra"),
        ({"model": ".hidden"}, "model"),
        ({"model": ".."}, "model"),
        ({"version": -1}, "version"),
        ({"version": "3"}, "version"),
        ({"version": 2**63}, "version"),
        ({"tables": [TABLE, TABLE]}, "'t' occurs twice"),
        ({"tables": [TABLE | {"buckets": 4}]}, "odd"),
        ({"tables": [TABLE | {"rows": 2}]}, "buckets"),
        ({"tables": [TABLE | {"row_bytes": 11}]}, "row_bytes"),
        ({"tables": [TABLE | {"blobs": TABLE["blobs"][:2]}]}, "blobs"),
        ({"tables": [TABLE | {"blobs": [*TABLE["blobs"][:2], "AB" * 32]}]}, r"blobs\[2\]"),
        ({"tables": [TABLE | {"blobs": [TABLE["blobs"][0], TABLE["blobs"][0], TABLE["blobs"][2]]}]}, "bytes"),
        ({"tables": [TABLE | {"dtype": "string"}]}, "dtype"),
        ({"tables": [{key: value for key, value in TABLE.items() if key != "rows"}]}, "rows: is missing"),
        ({"tables": {}}, "tables"),
        ({"files": [{"path": "../x", "digest": DIGEST, "bytes": 1}]}, "path"),
        ({"files": [{"path": "/x", "digest": DIGEST, "bytes": 1}]}, "path"),
        ({"files": [{"path": "a//x", "digest": DIGEST, "bytes": 1}]}, "path"),
        ({"source": {"a": 1}}, "source"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Manifest.from_bytes(document(**changes))


def test_an_edited_document_is_refused_by_its_digest() -> None:
    edited = example().to_bytes().replace(b'"version":3', b'"version":4')
    with pytest.raises(DataLossError, match="digest"):
        Manifest.from_bytes(edited)


def test_blobs_that_are_shared_count_once() -> None:
    table = example().tables[0]
    same = Table("u", 10, (3,), "float32", 12, 3, table.blobs)
    manifest = Manifest(model="m", version=1, tables=(table, same), weights=(), signatures={}, files=())
    assert list(manifest.blob_sizes().values()) == [48, 36, 36]
