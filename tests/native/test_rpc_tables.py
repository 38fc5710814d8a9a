"""The table store through Python, and `Lookup` over a real server with hand-made messages."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cpp_ext import _rpc
from protos import data_plane_pb2 as pb
from support.held_tables import (
    DIGEST,
    EPOCH,
    LOOKUP,
    MODEL,
    VERSION,
    KnownTable,
    publish,
    request,
    response,
    rows_of,
)
from support.rpc_calls import Outcome, call, connected
from tessera.errors import Code, DataLossError, InvalidArgumentError, NotFoundError, TesseraError

pytestmark = pytest.mark.native
NOT_OWNER, DRAINING, BAD_REQUEST = pb.Refusal.NOT_OWNER, pb.Refusal.DRAINING, pb.Refusal.BAD_REQUEST
LIMIT_BYTES = 64 << 10


@pytest.fixture
def users(tmp_path: Path) -> KnownTable:
    return KnownTable(tmp_path, "users", rows=1000, dim=8, buckets=7)


@pytest.fixture
def items(tmp_path: Path) -> KnownTable:
    return KnownTable(tmp_path, "items", rows=50, dim=3, buckets=1, first=5000.0)


@pytest.fixture
def store(users: KnownTable, items: KnownTable) -> _rpc.TableStore:
    store = _rpc.TableStore()
    publish(store, [users.held(), items.held()])
    return store


@pytest.fixture
def channel(store: _rpc.TableStore) -> Iterator[grpc.Channel]:
    server = _rpc.Server(address="127.0.0.1:0", pollers=2, max_message_bytes=LIMIT_BYTES)
    server.serve_tables(store)
    with connected(server.start()) as channel:
        yield channel
    server.stop()


# --- Objects ----------------------------------------------------------------------------------------------------


def test_slot_of_agrees_with_every_golden_vector() -> None:
    vectors = json.loads((Path(__file__).parents[1] / "golden" / "slots.json").read_text("utf-8"))["slot_of"]
    assert vectors
    for vector in vectors:
        assert _rpc.slot_of(vector["table"], vector["bucket"], vector["slots"]) == vector["slot"]


def test_slot_of_is_the_hash_that_the_planner_uses() -> None:
    import xxhash

    for table, bucket in (("users", 0), ("é/tables", 5), ("", 2**40)):
        expected = xxhash.xxh64(table.encode() + b"\0" + bucket.to_bytes(8, "little"), seed=0).intdigest()
        assert _rpc.slot_of(table, bucket, 4096) == expected % 4096
    with pytest.raises(InvalidArgumentError, match="slots: got 0"):
        _rpc.slot_of("users", 0, 0)


def test_a_blob_knows_its_file(users: KnownTable) -> None:
    path = users.path(0)
    for populate in (False, True):
        blob = _rpc.Blob.map(str(path), path.stat().st_size, populate=populate)
        assert (blob.path, blob.size_bytes) == (str(path), path.stat().st_size)


def test_a_blob_that_is_missing_or_has_another_size_is_named(users: KnownTable) -> None:
    path = users.path(0)
    with pytest.raises(NotFoundError, match=str(path) + "x"):
        _rpc.Blob.map(str(path) + "x", 10)
    size = path.stat().st_size
    with pytest.raises(DataLossError, match=f"{path}.*{size}.*{size + 1}"):
        _rpc.Blob.map(str(path), size + 1)
    with pytest.raises(TesseraError, match=str(path.parent)):
        _rpc.Blob.map(str(path.parent), 10)


@pytest.mark.parametrize(
    ("field", "value"), [("rows", -1), ("row_bytes", 0), ("row_bytes", -4), ("buckets", 0), ("buckets", 1 << 40)]
)
def test_a_number_of_a_table_that_is_out_of_range_is_named(field: str, value: int) -> None:
    settings: dict[str, Any] = {"rows": 10, "row_bytes": 4, "buckets": 1} | {field: value}
    with pytest.raises(InvalidArgumentError, match=f"table users: {field}: got {value}, expected"):
        _rpc.HeldTable(name="users", blobs={}, **settings)


def test_a_blob_of_another_size_than_its_bucket_is_named(users: KnownTable) -> None:
    # 1000 = 6 mod 7: the last bucket has a row less than the first.
    blobs = {6: users.blob(0)}
    with pytest.raises(DataLossError, match=r"table users: bucket 6: blob .* has 4576 bytes, expected 4544"):
        _rpc.HeldTable(name="users", rows=1000, row_bytes=32, buckets=7, blobs=blobs)
    with pytest.raises(InvalidArgumentError, match=r"table users: blobs\[7\]"):
        _rpc.HeldTable(name="users", rows=1000, row_bytes=32, buckets=7, blobs={7: users.blob(0)})


def test_what_cannot_be_published_is_named(users: KnownTable) -> None:
    store = _rpc.TableStore()
    with pytest.raises(InvalidArgumentError, match="package_digest: got 31 bytes, expected 32"):
        publish(store, [users.held()], package_digest=bytes(31))
    with pytest.raises(InvalidArgumentError, match="model: got an empty name"):
        publish(store, [users.held()], model="")
    assert store.retire(DIGEST) is False


# --- Lookups ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [False, True], ids=["u32", "u64"])
def test_rows_come_in_the_order_asked_for_with_their_repetitions(
    channel: grpc.Channel, store: _rpc.TableStore, users: KnownTable, wide: bool
) -> None:
    rows = [*random.Random(1).choices(range(1000), k=500), 0, 999, 0, 0]
    answer = call(channel, LOOKUP, request((0, rows), wide=wide))
    np.testing.assert_array_equal(rows_of(answer.response, 8), users.values[rows])
    stats = store.stats()
    assert (stats["requests"], stats["rows"], stats["bytes"]) == (1, 504, 504 * 32)


def test_blocks_of_several_tables_follow_each_other(
    channel: grpc.Channel, users: KnownTable, items: KnownTable
) -> None:
    answer = call(channel, LOOKUP, request((1, [49, 0]), (0, [5]), (1, []), (1, [7]), (0, [5, 6])))
    expected = b"".join(
        table.values[rows].tobytes() for table, rows in ((items, [49, 0]), (users, [5]), (items, [7]), (users, [5, 6]))
    )
    assert response(answer.response).rows == expected


def test_nothing_asked_is_nothing_answered(channel: grpc.Channel) -> None:
    assert response(call(channel, LOOKUP, request()).response).rows == b""
    assert response(call(channel, LOOKUP, request((0, []))).response).WhichOneof("result") == "rows"


def test_fields_of_a_later_build_are_ignored(channel: grpc.Channel, users: KnownTable) -> None:
    later = request((0, [3])) + b"\x9a\x06\x03new" + b"\xa0\x06\x05"  # field 99 (bytes) and field 100 (varint)
    np.testing.assert_array_equal(rows_of(call(channel, LOOKUP, later).response, 8), users.values[[3]])


def refusal(answer: Outcome) -> pb.Refusal:
    assert answer.code == Code.OK, answer
    message = response(answer.response)
    assert message.WhichOneof("result") == "refusal", message
    return message.refusal


def test_a_package_that_is_not_here_is_refused_with_the_newer_placement(
    channel: grpc.Channel, store: _rpc.TableStore
) -> None:
    other = request((0, [1]), package_digest=bytes(32))
    assert refusal(call(channel, LOOKUP, other)) == pb.Refusal(
        kind=NOT_OWNER, message="package 000000000000 (version 3) is not on this server"
    )
    store.set_placement(model=MODEL, epoch=EPOCH, document=b"of the request's epoch")
    refused = refusal(call(channel, LOOKUP, other))
    assert (refused.kind, refused.epoch, refused.placement) == (NOT_OWNER, EPOCH, b"")
    store.set_placement(model=MODEL, epoch=EPOCH + 1, document=b"newer")
    store.set_placement(model=MODEL, epoch=EPOCH - 1, document=b"older")
    store.set_placement(model="another", epoch=EPOCH + 9, document=b"of another model")
    refused = refusal(call(channel, LOOKUP, other))
    assert (refused.kind, refused.epoch, refused.placement) == (NOT_OWNER, EPOCH + 1, b"newer")
    assert store.stats()["refused_not_owner"] == 3


def test_a_bucket_that_is_not_here_is_refused_and_nothing_is_answered(
    channel: grpc.Channel, store: _rpc.TableStore, users: KnownTable, items: KnownTable
) -> None:
    publish(store, [users.held([0, 1, 2, 4, 5, 6]), items.held()])
    refused = refusal(call(channel, LOOKUP, request((0, [1, 2, 10]))))
    assert refused.kind == NOT_OWNER
    assert "table users: bucket 3 (of row 10)" in refused.message
    np.testing.assert_array_equal(
        rows_of(call(channel, LOOKUP, request((0, [1, 2]))).response, 8), users.values[[1, 2]]
    )


def test_a_draining_store_refuses_until_it_no_longer_drains(channel: grpc.Channel, store: _rpc.TableStore) -> None:
    store.set_placement(model=MODEL, epoch=EPOCH + 1, document=b"newer")
    store.set_draining(True)
    refused = refusal(call(channel, LOOKUP, request((0, [1]))))
    assert (refused.kind, refused.epoch, refused.placement) == (DRAINING, EPOCH + 1, b"newer")
    store.set_draining(False)
    assert rows_of(call(channel, LOOKUP, request((0, [1]))).response, 8).shape == (1, 8)
    assert store.stats()["refused_draining"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (request((2, [1])), "blocks[0].table: got 2, expected less than 2"),
        (request((1, [1]), (0, [1000])), "blocks[1].rows: got row 1000, but table users has 1000 rows"),
        (request((0, [2**64 - 1]), wide=True), "got row 18446744073709551615"),
        (request((0, [1]), package_digest=b"short"), "package_digest"),
        (request((0, [1]), version=4), "model, version"),
        (request((0, [1]), model="other"), "model, version"),
        (b"\xff\xff\xff", "LookupRequest"),
        (b"", "package_digest"),
        # Both widths at once, and a packed field that ends inside an id.
        (
            request() + pb.LookupRequest(blocks=[pb.LookupBlock(rows_u32=[1], rows_u64=[1])]).SerializeToString(),
            "blocks[0]",
        ),
        (request() + b"\x2a\x05\x12\x03abc", "blocks[0].rows: got 3 bytes"),
    ],
    ids=[
        "table",
        "row",
        "wide row",
        "digest",
        "version",
        "model",
        "junk",
        "empty",
        "two widths",
        "cut id",
    ],
)
def test_a_bad_request_is_refused_with_the_name_of_the_field(
    channel: grpc.Channel, store: _rpc.TableStore, body: bytes, says: str
) -> None:
    refused = refusal(call(channel, LOOKUP, body))
    assert refused.kind == BAD_REQUEST
    assert says in refused.message
    assert store.stats()["refused_bad_request"] == 1


def test_more_rows_than_a_message_holds_are_resource_exhausted(channel: grpc.Channel, store: _rpc.TableStore) -> None:
    fits = LIMIT_BYTES // 32 - 1
    assert rows_of(call(channel, LOOKUP, request((0, [1] * fits))).response, 8).shape == (fits, 8)
    answer = call(channel, LOOKUP, request((0, [1] * (fits + 2))))
    assert answer.code == Code.RESOURCE_EXHAUSTED
    assert f"the limit of {LIMIT_BYTES} bytes" in answer.message
    assert store.stats()["refused_too_large"] == 1


# --- Changes while requests run ---------------------------------------------------------------------------------


def under_load(
    channel: grpc.Channel, check: Callable[[Outcome], None], body: bytes, changes: Callable[[], None]
) -> int:
    """Send `body` from three threads while `changes` runs; return how many answers were checked."""
    stop, problems, checked = threading.Event(), [], [0, 0, 0]

    def load(number: int) -> None:
        try:
            while not stop.is_set():
                check(call(channel, LOOKUP, body))
                checked[number] += 1
        except AssertionError as error:
            problems.append(str(error))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        changes()
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert problems == []
    return sum(checked)


def test_an_answer_is_of_one_publication_while_tables_are_replaced(
    channel: grpc.Channel, store: _rpc.TableStore, tmp_path: Path
) -> None:
    tables = [KnownTable(tmp_path, "users", rows=400, dim=8, buckets=3, first=10000.0 * n) for n in range(4)]
    publish(store, [tables[0].held()])
    rows = list(range(400))
    expected = {table.values[rows].tobytes() for table in tables}
    seen: set[bytes] = set()

    def check(answer: Outcome) -> None:
        assert answer.code == Code.OK
        content = response(answer.response).rows
        assert content in expected, "rows of several publications, or of none"
        seen.add(content)

    def changes() -> None:
        end_s = time.monotonic() + 2.0
        number = 0
        while time.monotonic() < end_s:
            number += 1
            publish(store, [tables[number % 4].held()])  # maps anew: what was there before is unmapped

    assert under_load(channel, check, request((0, rows)), changes) > 50
    assert len(seen) > 1


def test_a_retired_package_is_refused_and_its_memory_is_unmapped(
    channel: grpc.Channel, store: _rpc.TableStore, users: KnownTable, items: KnownTable
) -> None:
    def mapped() -> bool:
        return str(users.path(0)) in Path("/proc/self/maps").read_text()

    assert mapped()

    def check(answer: Outcome) -> None:
        kind = response(answer.response).WhichOneof("result")
        assert answer.code == Code.OK
        assert kind == "rows" or refusal(answer).kind == NOT_OWNER

    def changes() -> None:
        time.sleep(0.1)
        for _ in range(200):
            assert store.retire(DIGEST) is True
            publish(store, [users.held(), items.held()])
        assert store.retire(DIGEST) is True

    under_load(channel, check, request((0, list(range(1000)))), changes)
    assert store.retire(DIGEST) is False
    assert refusal(call(channel, LOOKUP, request((0, [1])))).kind == NOT_OWNER
    assert not mapped()


def test_two_packages_that_share_a_blob_keep_it_until_both_are_gone(
    channel: grpc.Channel, store: _rpc.TableStore, users: KnownTable
) -> None:
    held = users.held()
    publish(store, [held], package_digest=b"a" * 32)
    publish(store, [held], package_digest=b"b" * 32, version=VERSION + 1)
    store.retire(DIGEST)
    del held
    store.retire(b"a" * 32)
    body = request((0, [17]), package_digest=b"b" * 32, version=VERSION + 1)
    np.testing.assert_array_equal(rows_of(call(channel, LOOKUP, body).response, 8), users.values[[17]])
    store.retire(b"b" * 32)
    assert str(users.path(0)) not in Path("/proc/self/maps").read_text()


# --- Damaged messages -------------------------------------------------------------------------------------------


def damaged_requests(count: int) -> Iterator[bytes]:
    """Random bytes, and requests with bytes changed, cut off, repeated or put in."""
    rng = random.Random(4)
    good = [request((0, [1, 2, 3]), (1, [4])), request((0, [1, 2, 3]), wide=True), request((1, list(range(50))))]
    for number in range(count):
        if number % 3 == 0:
            yield rng.randbytes(rng.randrange(200))
            continue
        body = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(4):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1:
                    del body[at:]
                case 2:
                    body[at:at] = body[at : at + rng.randrange(30)]
                case 3:
                    body[at:at] = rng.randbytes(rng.randrange(10))
        yield bytes(body)


def test_damaged_requests_are_answered_or_refused_and_never_end_the_server(
    channel: grpc.Channel, store: _rpc.TableStore
) -> None:
    results = {"rows": 0, "refusal": 0}
    for body in damaged_requests(3000):
        answer = call(channel, LOOKUP, body)
        if answer.code == Code.RESOURCE_EXHAUSTED:  # a change that asks for more rows than a message holds
            continue
        assert answer.code == Code.OK, (body, answer)
        kind = response(answer.response).WhichOneof("result")
        assert kind is not None
        results[kind] += 1
        if kind == "refusal":
            assert response(answer.response).refusal.message
    assert results["refusal"] > 1000
    assert results["rows"] > 5  # a change of the epoch or of an id can be a request again
    assert store.stats()["requests"] == 3000
