from __future__ import annotations

from typing import Any

import pytest

from admin.staging_text import staging_json, staging_line, staging_text, total_of
from placement.records import PackageRef, Placement, StagingRecord
from placement.slots import slot_of
from shard_server.staging.holders import by_promise, holders, turned
from tessera.manifest import Manifest, Table

SLOTS = 8


def _manifest(*digests: str, name: str = "t") -> Manifest:
    table = Table(
        name=name, rows=len(digests), row_shape=(1,), dtype="float32", row_bytes=4, buckets=len(digests), blobs=digests
    )
    return Manifest(model="m", version=1, tables=(table,), weights=(), signatures={}, files=())


def _placement(servers: tuple[str, ...], rows: tuple[tuple[int, ...], ...], manifest: Manifest) -> Placement:
    return Placement("m", 1, 1, SLOTS, servers, rows, (PackageRef(1, manifest.digest),))


def _digests(count: int) -> tuple[str, ...]:
    return tuple(f"{number * 0x01000001:08x}" + f"{number:056x}" for number in range(count))


def test_the_servers_of_a_blob_are_those_of_its_slot_and_never_this_one() -> None:
    digests = _digests(5)
    manifest = _manifest(*digests)
    rows = tuple((slot % 3, (slot + 1) % 3) for slot in range(SLOTS))
    placement = _placement(("a", "b", "c"), rows, manifest)
    found = holders([placement], lambda *reference: manifest, digests[:3], "b")
    for bucket, digest in enumerate(digests[:3]):
        owners = {placement.servers[position] for position in rows[slot_of("t", bucket, SLOTS)]}
        assert set(found[digest]) == owners - {"b"}
    assert found.keys() == set(digests[:3])
    assert holders([placement], lambda *reference: manifest, (), "b") == {}


def test_equal_content_of_another_table_or_placement_counts() -> None:
    digests = _digests(3)
    first, second = _manifest(*digests), _manifest(digests[1], digests[2], digests[0], name="other")
    rows = tuple((0,) for _ in range(SLOTS))
    placements = [_placement(("a",), rows, first), _placement(("b",), rows, second)]
    manifests = {first.digest: first, second.digest: second}
    found = holders(placements, lambda model, version, digest: manifests[digest], digests, "c")
    assert {digest: set(servers) for digest, servers in found.items()} == {digest: {"a", "b"} for digest in digests}


def test_many_blobs_spread_over_all_servers_that_have_them() -> None:
    servers = ("a", "b", "c", "d")
    first = [turned(f"{number * 2654435761 % (1 << 32):08x}", servers)[0] for number in range(400)]
    assert all(60 <= first.count(server) <= 140 for server in servers)
    assert turned("00000001", servers) == ("b", "c", "d", "a")
    assert turned("00000001", ()) == ()


def test_servers_that_are_heard_of_come_first_and_those_without_an_address_not_at_all() -> None:
    addresses = {"a": "h:1", "b": "", "c": "h:3", "d": "h:4"}
    assert by_promise(("d", "b", "a", "c"), addresses, {"a", "b", "c"}) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        (StagingRecord(), ("-", "-", "-")),
        (StagingRecord(512, 2048, 512), ("512 B of 2.0 KiB", "512 B/s", "3 s")),
        (StagingRecord(0, 2048), ("0 B of 2.0 KiB", "-", "?")),
        (StagingRecord(2048, 2048, 512), ("2.0 KiB of 2.0 KiB", "512 B/s", "-")),
    ],
)
def test_progress_is_shown_with_rate_and_time_left(record: StagingRecord, cells: tuple[str, str, str]) -> None:
    assert staging_text(staging_json(record)) == cells


def test_all_servers_together_take_as_long_as_the_slowest() -> None:
    several = [StagingRecord(0, 1000, 100), StagingRecord(500, 1000, 10), StagingRecord(7, 7, 99)]
    total: dict[str, Any] = total_of(several)
    assert total == {"done_bytes": 507, "total_bytes": 2007, "bytes_per_s": 110, "left_s": 50.0}
    assert staging_line(total) == "507 B of 2.0 KiB, 110 B/s, 50 s left"
    assert total_of([*several, StagingRecord(0, 5)])["left_s"] is None
    assert staging_line(total_of(())) == "0 B of 0 B"
