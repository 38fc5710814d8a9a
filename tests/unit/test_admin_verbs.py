"""What the verbs print and read, without a cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from admin import request_id
from admin.audit_command import parse_time, select
from admin.model_command import describe, model_json
from admin.output import encoded, show
from admin.placement_command import parse_slots
from admin.placement_text import diff_json, diff_text, history_json, history_text
from admin.traffic_command import parse_shares, split_text, versions_text
from placement.audit import KEPT_AUDITS, write_audited
from placement.document import PackageRef, Placement
from placement.memory_store import MemoryStore
from placement.records import AuditRecord, CurrentRecord, OperationRecord, OperationState, TrafficRecord
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import ABSENT, Compare, Put
from support.fake_cluster import KEYS, MODEL, make_current, make_placement
from tessera.errors import AbortedError, FailedPreconditionError, InvalidArgumentError, NotFoundError


def test_yaml_says_what_json_does(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"name": "m", "versions": [{"version": 1, "labels": ["stäble"]}], "none": None, "no": "yes", "f": 0.5}
    assert yaml.safe_load(encoded("yaml", content)) == json.loads(encoded("json", content)) == content
    assert list(yaml.safe_load(encoded("yaml", content))) == list(content)  # in the same order
    for output in ("table", "json", "yaml"):
        show(argparse.Namespace(output=output), content, "for people")
    table, rest = capsys.readouterr().out.split("\n", 1)
    assert table == "for people"
    assert rest == encoded("json", content) + "\n" + encoded("yaml", content) + "\n"


def test_shares_are_read_exactly() -> None:
    assert parse_shares(["2=12.5", "stable=87.50%"], "X-User") == TrafficRecord({"2": 1250, "stable": 8750}, "x-user")
    assert parse_shares(["007=100"], "").shares == {"7": 10_000}
    assert split_text(TrafficRecord({"2": 1250, "stable": 8750}, "x-user")) == "12.5 % to 2, 87.5 % to stable by x-user"
    assert split_text(TrafficRecord()) == "no split"


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["1=50"], "sum up to 50, expected 100"),
        (["1=50", "01=50"], "got 1 twice"),
        (["1=0", "2=100"], "got '1=0', expected"),
        (["1=nan", "2=100"], "got '1=nan'"),
        (["1=Infinity"], "got '1=Infinity'"),
        (["1=33.333", "2=66.667"], "at most two decimals"),
        (["1"], "got '1'"),
        (["=100"], "got '=100'"),
        (["1=-1", "2=101"], "got '1=-1'"),
    ],
)
def test_wrong_shares_are_named(texts: list[str], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        parse_shares(texts, "")


def test_slots_are_ranges_of_those_that_are_there() -> None:
    assert list(parse_slots("3", 4)) == [3]
    assert list(parse_slots("0-3", 4)) == [0, 1, 2, 3]
    for text in ("4", "3-2", "2-4", "a", "", "-1"):
        with pytest.raises(InvalidArgumentError, match="--slot: got"):
            parse_slots(text, 4)


def test_times_are_ago_or_iso() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    at = int(now.timestamp() * 1000)
    assert parse_time("2h", "--since", now) == at - 7_200_000
    assert parse_time("3d", "--since", now) == at - 3 * 86_400_000
    assert parse_time("2026-11-21T12:00Z", "--since", now) == at
    assert parse_time("2026-11-21T12:00", "--since", now) == at  # UTC where nothing is said
    assert parse_time("2026-11-21T13:00+01:00", "--since", now) == at
    for text in ("", "yesterday", "2x", "99999999999d"):
        with pytest.raises(InvalidArgumentError, match="--since: got"):
            parse_time(text, "--since", now)


def test_the_audit_is_filtered_and_newest_first() -> None:
    entries = [(1000 * n, AuditRecord(f"o{n}", "me", f"c{n}", "done", "a" if n % 2 else "b")) for n in range(6)]

    def commands(**filters: Any) -> list[str]:
        wanted: dict[str, Any] = {"model": None, "operation": None, "since_ms": None, "until_ms": None, "limit": 99}
        return [row["command"] for row in select(entries, **(wanted | filters))]

    assert commands() == ["c5", "c4", "c3", "c2", "c1", "c0"]
    assert commands(model="a") == ["c5", "c3", "c1"]
    assert commands(since_ms=2000, until_ms=4000) == ["c3", "c2"]
    assert commands(operation="o2") == ["c2"]
    assert commands(limit=2) == ["c5", "c4"]
    assert select(entries, model="a", operation=None, since_ms=None, until_ms=None, limit=1)[0]["time"] == (
        "1970-01-01T00:00:05Z"
    )


def test_audit_entries_come_with_the_change_and_are_trimmed() -> None:
    async def body() -> None:
        store = MemoryStore()
        for n in range(KEPT_AUDITS + 5):
            await store.put(KEYS.audit(n, f"old{n}"), AuditRecord(f"old{n}", "me", "c", "r").to_bytes())

        async def write(expected: int) -> None:
            await write_audited(
                store, KEYS, [Compare(KEYS.meta, version=expected)], [Put(KEYS.meta, b"{}")],
                owner="me", command="c", result="r", model=MODEL,
            )  # fmt: skip

        await write(ABSENT)
        with pytest.raises(AbortedError):
            await write(ABSENT)
        entries = (await store.list_prefix(KEYS.audits)).entries
        assert len(entries) == KEPT_AUDITS
        assert AuditRecord.from_bytes(entries[-1].value, entries[-1].key).model == MODEL
        assert entries[0].key == KEYS.audit(6, "old6")  # the oldest went

    asyncio.run(body())


def test_two_placements_are_compared() -> None:
    before, after = make_placement(1, "ab"), make_placement(2, "abc", version=PackageRef(2, "1" * 64))
    content = diff_json(before, after)
    assert (content["before"], content["after"], content["slots"]) == (1, 2, [12, 12])
    gained = sum(server["gained"] for server in content["servers"].values())
    assert gained == sum(server["lost"] for server in content["servers"].values()) == content["slots_moved"] > 0
    assert sum(move["slots"] for move in content["moves"]) == content["slots_moved"]
    assert [one["version"] for one in content["versions_added"]] == [2]
    assert [one["version"] for one in content["versions_removed"]] == [1]
    text = diff_text(content)
    assert "epoch 1 -> 2" in text
    assert "+2 (111111111111)" in text
    same = diff_json(before, replace(before, epoch=2))
    assert (same["slots_moved"], same["moves"], same["versions_added"]) == (0, [], [])
    swapped = replace(make_placement(2, "ab", replicas=2), slot_servers=((1, 0),) * 12)
    other = diff_json(replace(swapped, slot_servers=((0, 1),) * 12), swapped)
    assert (other["slots_moved"], other["slots_reordered"]) == (0, 12)


def test_history_says_what_made_each_placement() -> None:
    documents = {epoch: make_placement(epoch, "ab") for epoch in (1, 2, 3)}
    audits = [
        (1000, AuditRecord("o1", "ana", "load m", "epoch 1 is current", MODEL)),
        (2000, AuditRecord("o2", "ana", "other", "epoch 2 is current", "other")),
        (3000, AuditRecord("o3", "bob", "reshard m", "epoch 3 is current", MODEL)),
    ]
    current = CurrentRecord(1, 3, documents[3].digest, "o3", documents[3].versions)
    rows = history_json(MODEL, documents, current, audits)
    assert [(row["epoch"], row["current"], row["command"], row["time"]) for row in rows] == [
        (3, True, "reshard m", "1970-01-01T00:00:03Z"),
        (2, False, "", None),
        (1, False, "load m", "1970-01-01T00:00:01Z"),
    ]
    assert "* 3" in history_text(rows)


def test_a_model_is_described_by_what_counts_now() -> None:
    async def body() -> None:
        store = MemoryStore()
        placement = make_placement(1, "ab")
        await make_current(store, placement)
        labelled = (replace(placement.versions[0], labels=("stable",)),)
        pointer = CurrentRecord(1, 1, placement.digest, "o", labelled, TrafficRecord({"stable": 10_000}))
        await store.put(KEYS.current(MODEL), pointer.to_bytes())
        snapshot = replace_all(KEYS, ClusterSnapshot(), await store.list_prefix(KEYS.prefix))
        row = model_json(MODEL, snapshot.models[MODEL])
        assert (row["state"], row["epoch"], row["split"]["percent"]) == ("SERVING", 1, {"stable": 100.0})
        assert row["versions"][0]["labels"] == ["stable"]
        described = describe(snapshot, MODEL)
        assert [(one["id"], one["state"], one["slots"], one["first"]) for one in described["servers"]] == [
            ("a", "LOST", 6, 6),
            ("b", "LOST", 6, 6),
        ]
        with pytest.raises(NotFoundError, match="model x: is not there; there are m"):
            describe(snapshot, "x")
        await store.put(KEYS.current(MODEL), replace(pointer, epoch=2, digest="", versions=()).to_bytes())
        gone = replace_all(KEYS, ClusterSnapshot(), await store.list_prefix(KEYS.prefix))
        assert model_json(MODEL, gone.models[MODEL])["state"] == "UNLOADED"
        assert versions_text(()) == ""

    asyncio.run(body())


def _options(**changes: Any) -> argparse.Namespace:
    values = {"request_id": "r1", "dry_run": False, "wait": True, "timeout_s": 20.0, "output": "json"}
    return argparse.Namespace(**(values | changes))


def test_a_command_with_the_same_id_joins_and_another_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        store = MemoryStore()

        async def join(command: str = "reshard m --add=a", **changes: Any) -> bool:
            return await request_id.join(_options(**changes), store, KEYS, MODEL, command)

        await make_current(store, make_placement(1, "ab"))
        assert not await join()
        operation = OperationRecord("r1", "reshard", OperationState.DONE, 1, 2, "d", "me", command="reshard m --add=a")
        await store.put(KEYS.operation(MODEL), operation.to_bytes())
        assert await join()
        assert json.loads(capsys.readouterr().out)["operation"] == "r1"
        assert not await join(request_id="")
        assert not await join(dry_run=True)
        assert not await join(request_id="r2")
        with pytest.raises(FailedPreconditionError, match=r"r1 was used for 'reshard m --add=a', this is 'other'"):
            await join("other")
        with pytest.raises(InvalidArgumentError, match="--request-id: got 'a/b'"):
            await join(request_id="a/b")
        active = replace(operation, state=OperationState.PREPARING)
        await store.put(KEYS.operation(MODEL), active.to_bytes())
        assert await join(wait=False)

        # While somebody else drives it, it is followed.
        lease = await store.grant_lease(60)
        await store.put(KEYS.lock(MODEL), b'{"owner":"other"}', lease=lease)
        joined = asyncio.create_task(join())
        await asyncio.sleep(0.1)
        assert not joined.done()
        await store.put(KEYS.operation(MODEL), operation.to_bytes())
        assert await joined

        # Its model has another operation since: the audit still knows it.
        await store.put(KEYS.operation(MODEL), replace(operation, id="r9", command="x").to_bytes())
        done = AuditRecord("r1", "me", "reshard m --add=a", "epoch 2 is current", MODEL)
        await store.put(KEYS.audit(1, "r1"), done.to_bytes())
        capsys.readouterr()
        assert await join()
        assert json.loads(capsys.readouterr().out)["result"] == "epoch 2 is current"
        await store.put(KEYS.audit(2, "r1"), replace(done, result="aborted: no").to_bytes())
        with pytest.raises(FailedPreconditionError, match="the operation was aborted: no"):
            await join()

    asyncio.run(body())


def test_documents_of_placements_are_not_mixed_with_other_slots() -> None:
    wide = Placement(MODEL, 2, 2, 1, ("a",), ((0,),), (PackageRef(1, "0" * 64),))
    content = diff_json(make_placement(1, "ab"), wide)
    assert (content["slots"], content["layouts"], content["slots_moved"]) == ([12, 1], [1, 2], 0)
    assert "Slots      12 -> 1" in diff_text(content)
