"""The fan-out against real servers and stores of this process, driven through its C interface."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpp_ext import _rpc
from protos import data_plane_pb2 as pb
from support.fanout_client import Lookup
from support.held_tables import DIGEST, EPOCH, LOOKUP, MODEL, VERSION, KnownTable, publish
from support.rpc_calls import HoldingHandler
from support.shards import SLOTS, Shards, answer, ids_of
from tessera.errors import Code, FailedPreconditionError, InvalidArgumentError

pytestmark = pytest.mark.native


# --- Rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pollers", ["own", "of the server"])
def test_a_lookup_takes_one_request_a_server_and_asks_for_each_row_once(shards: Shards, pollers: str) -> None:
    shards.add(4)
    fanout = shards.fanout(None if pollers == "own" else shards.servers[0])
    route, gathers = shards.route(fanout), shards.both()
    for number in range(1, 4):
        shards.check(Lookup(fanout, route, gathers).wait(), gathers)
        assert [store.stats()["requests"] for store in shards.stores] == [number] * 4
    distinct = {(table, int(i)) for table, ids, _ in gathers for i in ids}
    assert sum(store.stats()["rows"] for store in shards.stores) == 3 * len(distinct)
    stats = fanout.stats()
    assert (stats["lookups"], stats["subrequests"], stats["retries"], stats["failures"]) == (3, 12, 0, 0)
    assert {name: server["in_flight"] for name, server in stats["servers"].items()} == dict.fromkeys(
        ("s0", "s1", "s2", "s3"), 0
    )


def test_only_servers_that_hold_something_asked_for_are_asked(shards: Shards) -> None:
    shards.add(4)
    fanout = shards.fanout()
    gathers = [(0, ids_of(*[17] * 100), 8)]
    shards.check(Lookup(fanout, shards.route(fanout), gathers).wait(), gathers)
    assert sorted(store.stats()["rows"] for store in shards.stores) == [0, 0, 0, 1]


def test_local_and_remote_targets_answer_alike(shards: Shards) -> None:
    shards.add(2)
    fanout = shards.fanout()
    targets = [
        _rpc.Target(server_id="here", store=shards.stores[0]),
        _rpc.Target(server_id="there", address=shards.addresses[1]),
    ]
    gathers = shards.both()
    shards.check(Lookup(fanout, shards.route(fanout, targets=targets), gathers).wait(), gathers)
    assert shards.servers[0].stats()["calls_started"] == 0
    assert [store.stats()["requests"] for store in shards.stores] == [1, 1]


def test_random_tables_routes_and_ids(tmp_path: Path) -> None:
    rng = random.Random(11)
    fanout = _rpc.Fanout(retry_delay_s=60.0)  # a second request would be counted
    for case in range(25):
        count = rng.randrange(1, 6)
        tables = [
            KnownTable(
                tmp_path / str(case),
                f"t{i}",
                rows=rng.randrange(1, 400),
                dim=rng.choice((1, 3, 4, 16, 100)),
                buckets=rng.choice((1, 3, 17)),
                first=1000.0 * i,
            )
            for i in range(rng.randrange(1, 5))
        ]
        slots = [rng.sample(range(count), rng.randrange(1, count + 1)) for _ in range(rng.choice((1, 7, 64)))]
        stores = [_rpc.TableStore() for _ in range(count)]
        for server, store in enumerate(stores):
            publish(
                store,
                [
                    table.held(
                        b for b in range(table.buckets) if server in slots[_rpc.slot_of(table.name, b, len(slots))]
                    )
                    for table in tables
                ],
            )
        route = fanout.route(
            model=MODEL,
            version=VERSION,
            epoch=EPOCH,
            package_digest=DIGEST,
            targets=[_rpc.Target(server_id=f"s{i}", store=store) for i, store in enumerate(stores)],
            slots=slots,
            tables=[table.routed() for table in tables],
        ).capsule()
        gathers = []
        for _ in range(rng.randrange(1, 7)):
            number = rng.randrange(len(tables))
            chosen = rng.choices(range(tables[number].rows), k=rng.randrange(200))
            gathers.append((number, np.array(chosen, rng.choice((np.int32, np.int64))), tables[number].dim))
        lookup = Lookup(fanout, route, gathers).wait()
        assert lookup.code == Code.OK, lookup.message
        for (number, ids, _), rows in zip(gathers, lookup.rows, strict=True):
            np.testing.assert_array_equal(rows, tables[number].values[ids])
        # Every server answered at most once, and no row was sent twice.
        assert max(store.stats()["requests"] for store in stores) <= 1
        distinct = {(number, int(i)) for number, ids, _ in gathers for i in ids}
        assert sum(store.stats()["rows"] for store in stores) == len(distinct)
    fanout.stop()


@pytest.mark.parametrize("bad", [-1, 1000, 2**40])
def test_an_id_that_is_no_row_fails_the_lookup_before_anything_is_asked(shards: Shards, bad: int) -> None:
    shards.add(1)
    fanout = shards.fanout()
    lookup = Lookup(fanout, shards.route(fanout), [(0, ids_of(1, bad), 8)]).wait()
    assert lookup.code == Code.INVALID_ARGUMENT
    assert "users" in lookup.message
    assert str(bad) in lookup.message
    assert shards.stores[0].stats()["requests"] == 0


def test_a_proxy_of_the_environment_is_not_asked(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    shards.add(1)
    fanout, gathers = shards.fanout(), shards.both()
    shards.check(Lookup(fanout, shards.route(fanout), gathers).wait(), gathers)


def test_more_rows_than_a_message_holds_take_several(shards: Shards) -> None:
    shards.add(1)
    fanout = shards.fanout(max_message_bytes=4096)
    gathers = [(0, np.arange(1000), 8)]
    shards.check(Lookup(fanout, shards.route(fanout), gathers).wait(), gathers)
    assert fanout.stats()["subrequests"] >= 1000 * 32 / 4096


# --- Replicas ---------------------------------------------------------------------------------------------------

TWO = [[0, 1]] * SLOTS


def test_a_replica_answers_for_a_server_that_stopped(shards: Shards) -> None:
    shards.add(2)
    fanout = shards.fanout()
    route, gathers = shards.route(fanout, TWO), shards.both()
    shards.check(Lookup(fanout, route, gathers).wait(), gathers)
    shards.servers[0].stop()
    for _ in range(20):
        shards.check(Lookup(fanout, route, gathers).wait(), gathers)
    stats = fanout.stats()
    assert stats["servers"]["s0"]["suspect"]
    assert not stats["servers"]["s1"]["suspect"]
    assert shards.stores[1].stats()["requests"] >= 20
    # It is suspected, hence not asked every time.
    assert stats["servers"]["s0"]["failures"] < 15


def test_replicas_that_refuse_are_passed_over(shards: Shards) -> None:
    shards.add(3)
    fanout = shards.fanout()
    route, gathers = shards.route(fanout, [[0, 1, 2]] * SLOTS), shards.both()
    shards.stores[0].retire(DIGEST)
    shards.stores[0].set_placement(model=MODEL, epoch=EPOCH + 4, document=b"newer")
    shards.stores[1].set_draining(True)
    shards.check(Lookup(fanout, route, gathers).wait(), gathers)
    assert fanout.stats()["newest_epochs"] == {MODEL: EPOCH + 4}
    assert fanout.newest_placements() == {MODEL: b"newer"}
    assert shards.stores[0].stats()["refused_not_owner"] == 1
    assert shards.stores[1].stats()["refused_draining"] == 1


def test_no_live_server_is_unavailable_at_once_and_names_table_bucket_and_servers(shards: Shards) -> None:
    shards.add(3)
    fanout = shards.fanout()
    route = shards.route(fanout, [[0, 1, 2]] * SLOTS)
    shards.servers[0].stop()
    shards.servers[1].stop()
    shards.stores[2].set_draining(True)
    began_s = time.monotonic()
    lookup = Lookup(fanout, route, [(0, ids_of(40), 8)], timeout_s=30).wait()
    assert lookup.code == Code.UNAVAILABLE
    assert f'model {MODEL}: table "users" bucket 9: ' in lookup.message
    for number, address in enumerate(shards.addresses):
        assert f"s{number} ({address}): " in lookup.message
    assert "DRAINING" in lookup.message
    assert time.monotonic() - began_s < 5


def test_a_server_without_an_address_counts_as_unreachable(shards: Shards) -> None:
    shards.add(1)
    fanout = shards.fanout()
    targets = [_rpc.Target(server_id="lost"), _rpc.Target(server_id="s0", address=shards.addresses[0])]
    gathers = shards.both()
    shards.check(Lookup(fanout, shards.route(fanout, TWO, targets=targets), gathers).wait(), gathers)
    lookup = Lookup(fanout, shards.route(fanout, [[0]] * SLOTS, targets=targets), gathers).wait()
    assert lookup.code == Code.UNAVAILABLE
    assert "lost: its address is not known" in lookup.message


def test_a_server_that_came_back_is_used_again(shards: Shards) -> None:
    shards.add(1)
    fanout, gathers = shards.fanout(), shards.both()
    route = shards.route(fanout)
    shards.servers[0].stop()
    assert Lookup(fanout, route, gathers).wait().code == Code.UNAVAILABLE
    again = _rpc.Server(address=shards.addresses[0], pollers=1)
    again.serve_tables(shards.stores[0])
    shards.stack.callback(again.stop)
    again.start()
    end_s = time.monotonic() + 15
    while Lookup(fanout, route, gathers).wait().code != Code.OK:
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (answer(bytes(31)), Code.INTERNAL, "sent 31 bytes of rows, expected 32"),
        (answer(bytes(64)), Code.INTERNAL, "sent 64 bytes of rows, expected 32"),
        (b"", Code.INTERNAL, "s0"),
        (b"\xff\xff", Code.INTERNAL, "s0"),
        (
            pb.LookupResponse(refusal=pb.Refusal(kind=99, message="later")).SerializeToString(),  # type: ignore[arg-type]
            Code.UNAVAILABLE,
            "later",
        ),
    ],
    ids=["short", "long", "empty", "junk", "unknown refusal"],
)
def test_an_answer_that_makes_no_sense_is_never_taken_for_rows(
    shards: Shards, content: bytes, code: Code, says: str
) -> None:
    silent = shards.add_silent()
    shards.add(1)
    fanout = shards.fanout(retry_delay_s=5.0)
    gathers = [(0, ids_of(40), 8)]
    alone = Lookup(fanout, shards.route(fanout, [[0]] * SLOTS), gathers)
    silent.next().finish(0, content)
    assert alone.wait().code == code
    assert says in alone.message
    assert "s0" in alone.message
    # With a replica nothing is lost.
    both = Lookup(fanout, shards.route(fanout, TWO), gathers)
    with contextlib.suppress(Exception):  # it may be suspected by now, and is then not asked
        silent.calls.get(timeout=0.5).finish(0, content)
    shards.check(both.wait(), gathers)


def test_a_silent_server_costs_the_retry_delay_and_its_call_is_cancelled(shards: Shards) -> None:
    silent = shards.add_silent()
    shards.add(1)
    fanout, gathers = shards.fanout(retry_delay_s=0.1), shards.both()
    began_s = time.monotonic()
    shards.check(Lookup(fanout, shards.route(fanout, TWO), gathers, timeout_s=20).wait(), gathers)
    assert 0.1 <= time.monotonic() - began_s < 5
    held = silent.next()
    assert held.cancelled.wait(10)
    held.finish(0, b"late")
    assert fanout.stats()["hedges"] == 1


# --- Deadline, cancellation, the end ----------------------------------------------------------------------------


def test_a_deadline_that_passes_names_the_silent_server(shards: Shards) -> None:
    silent = shards.add_silent()
    shards.add(1)
    fanout = shards.fanout()
    slots = [[slot % 2] for slot in range(SLOTS)]
    lookup = Lookup(fanout, shards.route(fanout, slots), shards.both(), timeout_s=0.3)
    held = silent.next()
    assert 0 < held.deadline_ns - time.monotonic_ns() <= 0.31e9  # gRPC rounds up to milliseconds
    lookup.wait()
    assert lookup.code == Code.DEADLINE_EXCEEDED
    assert f"s0 ({shards.addresses[0]})" in lookup.message
    assert "s1" not in lookup.message
    assert held.cancelled.wait(10)
    held.finish(0, b"")


def test_a_cancelled_lookup_ends_at_once_and_cancels_its_calls(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout()
    lookup = Lookup(fanout, shards.route(fanout), shards.both(), timeout_s=None)
    held = silent.next()
    lookup.cancel()
    assert lookup.wait().code == Code.CANCELLED
    assert held.cancelled.wait(10)
    held.finish(0, b"")
    assert lookup.ends == 1


def test_stopping_a_fanout_ends_its_lookups_and_refuses_new_ones(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout()
    route = shards.route(fanout)
    lookups = [Lookup(fanout, route, shards.both(), timeout_s=None) for _ in range(3)]
    held = [silent.next() for _ in range(2)]  # the third waits for one of them
    fanout.stop()
    assert {lookup.wait(0.1).code for lookup in lookups} == {Code.CANCELLED}
    assert Lookup(fanout, route, shards.both()).wait(5).code in (Code.CANCELLED, Code.UNAVAILABLE)
    with pytest.raises(FailedPreconditionError, match="the fan-out is stopped"):
        shards.route(fanout)
    for one in held:
        one.finish(0, b"")
    fanout.stop()


def test_a_route_may_be_dropped_while_its_lookup_runs(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout()
    gathers = [(0, ids_of(40, 41), 8)]
    lookup = Lookup(fanout, shards.route(fanout), gathers)
    held = silent.next()
    held.finish(0, answer(shards.tables[0].values[[40, 41]].tobytes()))
    shards.check(lookup.wait(), gathers)


# --- Routes and settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": ""}, "model is empty"),
        ({"package_digest": b"short"}, "package_digest has 5 bytes, expected 32"),
        ({"slots": []}, "slots has 0 entries"),
        ({"slots": [[0], [5]]}, r"slots\[1\] names target 5"),
        ({"slots": [[0, 0]]}, r"slots\[0\] names target 0 twice"),
        ({"slots": [[]]}, r"slots\[0\]"),
        ({"targets": [_rpc.Target(server_id="")]}, r"targets\[0\]\.server_id is empty"),
        ({"tables": [_rpc.RoutedTable(name="", rows=1, row_bytes=4, buckets=1)]}, r"tables\[0\]\.name is empty"),
        ({"tables": [_rpc.RoutedTable(name="t", rows=-1, row_bytes=4, buckets=1)]}, r"tables\[0\]\.rows is -1"),
        ({"tables": [_rpc.RoutedTable(name="t", rows=1, row_bytes=0, buckets=1)]}, r"tables\[0\]\.row_bytes is 0"),
        ({"tables": [_rpc.RoutedTable(name="t", rows=1, row_bytes=4, buckets=0)]}, r"tables\[0\]\.buckets is 0"),
    ],
)
def test_a_route_that_cannot_be_is_refused_by_the_field(shards: Shards, changes: dict[str, Any], says: str) -> None:
    shards.add(1)
    with pytest.raises(InvalidArgumentError, match=says):
        shards.route(shards.fanout(), **changes)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"retry_delay_s": 0.0}, "retry_delay"),
        ({"retry_budget_tokens": 0}, "retry_budget_tokens"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"tls_root_ca_file": "x", "tls_certificate_file": "x"}, "tls_certificate_file and tls_private_key_file"),
        ({"tls_certificate_file": "x", "tls_private_key_file": "x"}, "tls_root_ca_file"),
    ],
)
def test_settings_of_a_fanout_that_cannot_be_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        _rpc.Fanout(**settings)


def test_the_oldest_epoch_is_that_of_the_oldest_living_route(shards: Shards) -> None:
    shards.add(1)
    fanout = shards.fanout()
    assert fanout.stats()["oldest_epochs"] == {}
    old, gathers = shards.route(fanout, [[0]] * SLOTS), shards.both()
    new = shards.route(fanout, [[0]] * SLOTS, epoch=EPOCH + 1)
    assert fanout.stats()["oldest_epochs"] == {MODEL: EPOCH}
    lookup = Lookup(fanout, old, gathers)
    del old
    shards.check(lookup.wait(), gathers)
    del lookup
    deadline_s = time.monotonic() + 5  # the last to let go is a thread of the fan-out
    while fanout.stats()["oldest_epochs"] != {MODEL: EPOCH + 1}:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    del new
    assert fanout.stats()["oldest_epochs"] == {}


def test_a_server_that_refuses_for_load_is_taken_as_overloaded_and_its_replica_asked(shards: Shards) -> None:
    handler = HoldingHandler()
    server = _rpc.Server(address="127.0.0.1:0", pollers=1, max_concurrent_calls=1)
    server.serve_native(LOOKUP, handler.capsule)
    shards._start(server)
    shards.stack.callback(handler.close)
    shards.stores.append(_rpc.TableStore())
    shards.add()
    fanout = shards.fanout(retry_delay_s=60.0, max_in_flight_lookups_per_server=0)
    gathers = [(0, ids_of(1, 2, 3), 8)]
    alone = shards.route(fanout, [[0]] * SLOTS)
    first = Lookup(fanout, alone, gathers)
    held = handler.next()
    refused = Lookup(fanout, alone, gathers).wait()
    assert refused.code == Code.RESOURCE_EXHAUSTED
    assert "OVERLOADED: too many requests in progress" in refused.message
    shards.check(Lookup(fanout, shards.route(fanout, [[0, 1]] * SLOTS), gathers).wait(), gathers)
    held.finish(int(Code.ABORTED), b"the test is over")
    first.wait()


def test_servers_that_are_to_be_avoided_are_asked_last(shards: Shards) -> None:
    shards.add(2)
    fanout = shards.fanout(retry_delay_s=60.0)
    gathers = [(0, ids_of(*range(100)), 8)]
    route = shards.route(fanout, [[0, 1]] * SLOTS)
    fanout.avoid({"s0", "never heard of"})
    shards.check(Lookup(fanout, route, gathers).wait(), gathers)
    assert [store.stats()["requests"] for store in shards.stores] == [0, 1]
    stats = fanout.stats()["servers"]
    assert (stats["s0"]["avoided"], stats["s1"]["avoided"], stats["s0"]["ejected"]) == (True, False, False)
    fanout.avoid(set())
    shards.check(Lookup(fanout, route, gathers).wait(), gathers)
    assert [store.stats()["requests"] for store in shards.stores] == [1, 1]
