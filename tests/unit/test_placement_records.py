from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.codec import Record
from placement.records import (
    AuditRecord,
    CurrentRecord,
    LockRecord,
    MemberRecord,
    MemberState,
    MetaRecord,
    OperationRecord,
    OperationState,
    PackageRef,
    Placement,
    ReadyRecord,
    RouterRecord,
    ServerRecord,
    ServerState,
    TrafficRecord,
)
from tessera.errors import DataLossError, InvalidArgumentError

REF = PackageRef(3, "ab" * 32, ("stable",))
RECORDS: list[Record] = [
    MetaRecord("u", 1, 1),
    ServerRecord("zone-a", 2, 1 << 40, ServerState.CORDONED),
    MemberRecord("i", "127.0.0.1:1", "0.1.0", MemberState.SERVING, "zone-a", 1 << 40, 7, {"m": 4}),
    RouterRecord("i", "127.0.0.1:1", {"m": 4}),
    CurrentRecord(1, 4, "cd" * 32, "op", (REF,), TrafficRecord({"3": 9_000, "stable": 1_000}, "x-user")),
    OperationRecord("op", "load", OperationState.PREPARING, 0, 1, "cd" * 32, "me", ""),
    ReadyRecord("i", "cd" * 32, 5),
    LockRecord("me"),
    AuditRecord("op", "me", "load m", "done", "m"),
]

ADDED_LATER: dict[type[Record], set[str]] = {
    MemberRecord: {"released", "staging"},
    RouterRecord: {"prepared"},
    CurrentRecord: {"traffic"},
    OperationRecord: {
        *("base_digest", "later_digests", "origin_epoch", "lost", "routers", "command"),
        *("traffic", "origin_versions", "origin_traffic", "paused", "hold", "verified_epoch"),
    },
    AuditRecord: {"model"},
}


def placement(**changes: Any) -> Placement:
    values: dict[str, Any] = {
        "model": "m",
        "epoch": 1,
        "layout": 1,
        "slots": 4,
        "servers": ("a", "b", "c"),
        "slot_servers": ((0, 1), (1, 2), (2, 0), (0, 1)),
        "versions": (REF,),
    }
    return Placement(**{**values, **changes})


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_records_survive_and_are_canonical(record: Record) -> None:
    data = record.to_bytes()
    assert type(record).from_bytes(data, "k") == record
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_unknown_fields_are_tolerated_missing_and_wrong_ones_are_named(record: Record) -> None:
    raw = json.loads(record.to_bytes())
    assert type(record).from_bytes(json.dumps({**raw, "of_the_future": [1]}).encode(), "k") == record
    for name in raw:
        without = {key: value for key, value in raw.items() if key != name}
        if name in ADDED_LATER.get(type(record), ()):
            type(record).from_bytes(json.dumps(without).encode(), "/the/key")
            continue
        with pytest.raises(DataLossError, match=f"/the/key: field {name}: missing"):
            type(record).from_bytes(json.dumps(without).encode(), "/the/key")
        with pytest.raises(DataLossError, match=f"/the/key: field {name}: got"):
            type(record).from_bytes(json.dumps({**raw, name: None}).encode(), "/the/key")


def test_fields_of_this_release_are_read_from_records_of_the_one_before_and_their_types_are_checked() -> None:
    added = ADDED_LATER[OperationRecord]
    raw = {name: value for name, value in json.loads(RECORDS[5].to_bytes()).items() if name not in added}
    record = OperationRecord.from_bytes(json.dumps(raw).encode(), "k")
    assert (record.later_digests, record.lost, record.origin_epoch) == ((), (), 0)
    with pytest.raises(DataLossError, match="k: field lost: got"):
        OperationRecord.from_bytes(json.dumps({**raw, "lost": 1}).encode(), "k")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(DataLossError, match="/the/key"):
        LockRecord.from_bytes(data, "/the/key")


def test_a_boolean_is_no_number_and_a_nested_field_is_named() -> None:
    raw = json.loads(RECORDS[4].to_bytes())
    raw["versions"][0]["version"] = True
    with pytest.raises(DataLossError, match=r"k: field versions\[0\]: field version: got 'True'"):
        CurrentRecord.from_bytes(json.dumps(raw).encode(), "k")


def test_the_placement_document_survives_with_its_digest() -> None:
    document = placement()
    again = Placement.from_bytes(document.to_bytes(), "k")
    assert again == document
    assert again.digest == document.digest
    # Golden: the digest names the canonical document for ever, in every process and release.
    assert document.digest == "d3b50dc7fa3c62ed3e5ec34a06f84f7baa0c8bf24d91c6ebfae2625bb1a577fa"
    assert placement(epoch=2).digest != document.digest


def test_a_placement_that_was_read_is_passed_on_as_it_came() -> None:
    data = placement().to_bytes()
    assert Placement.from_bytes(data, "k").to_bytes() is data, "packing it again would cost more than all else"


def test_a_placement_without_servers_is_of_a_model_without_tables() -> None:
    document = placement(servers=(), slot_servers=((),) * 4)
    assert document.replicas == 0
    assert Placement.from_bytes(document.to_bytes(), "k") == document


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 0}, "epoch"),
        ({"model": "a/b"}, "model"),
        ({"servers": ("b", "a", "c")}, "servers"),
        ({"servers": ("a", "b")}, r"slot_servers\[1\]"),
        ({"servers": ()}, r"slot_servers\[0\]"),
        ({"slots": 5}, "slot_servers: got 4 slots"),
        ({"slot_servers": ((0, 1), (1,), (2, 0), (0, 1))}, r"slot_servers\[1\]"),
        ({"slot_servers": ((0, 0), (1, 2), (2, 0), (0, 1))}, r"slot_servers\[0\]"),
        ({"slot_servers": ((0, -1), (1, 2), (2, 0), (0, 1))}, r"slot_servers\[0\]"),
        ({"versions": ()}, "versions"),
        ({"versions": (REF, REF)}, "versions"),
        ({"versions": (REF, PackageRef(4, "ab" * 32, ("stable",)))}, "labels"),
    ],
)
def test_a_wrong_placement_is_refused_when_made_and_when_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        placement(**changes)
    raw = json.loads(placement().canonical)
    for name, value in changes.items():
        raw[name] = [json.loads(v.to_bytes()) for v in value] if name == "versions" else value
    with pytest.raises(DataLossError, match="/the/key"):
        Placement.from_bytes(zlib.compress(json.dumps(raw).encode()), "/the/key")


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_document_never_passes_as_the_same(position: int, flip: int) -> None:
    document = placement()
    data = bytearray(document.to_bytes())
    data[position % len(data)] ^= flip
    try:
        read = Placement.from_bytes(bytes(data), "k")
    except DataLossError:
        return
    assert read.digest == document.digest


def test_a_truncated_or_followed_document_is_refused() -> None:
    data = placement().to_bytes()
    for wrong in (data[:-1], data + b"x", b""):
        with pytest.raises(DataLossError, match="k"):
            Placement.from_bytes(wrong, "k")
