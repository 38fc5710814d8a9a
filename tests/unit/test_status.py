"""What `tessera status` prints, from snapshots made by hand."""

import json
from dataclasses import replace

from admin.router_stats import Answer, to_json
from admin.status_command import describe, describe_routers
from admin.status_text import as_text
from placement.records import (
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    PackageRef,
    Placement,
    ReadyRecord,
    RouterRecord,
)
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from router.status_service import to_message
from support.golden import check_golden
from support.router_statistics import router_statistics

_DIGEST = "ab" * 32
_PLACEMENT = Placement(
    model="ranker",
    epoch=3,
    layout=1,
    slots=4,
    servers=("server-0", "server-1"),
    slot_servers=((0, 1), (1, 0), (0, 1), (0, 1)),
    versions=(PackageRef(1, _DIGEST, ("stable",)), PackageRef(2, "cd" * 32)),
)


def _member(number: int, state: MemberState = MemberState.SERVING, error: str = "") -> MemberRecord:
    return MemberRecord(
        f"i{number}", f"10.0.0.{number}:8600", "0.1.0", state, "zone-a", 3 << 30, 5 << 20, {"ranker": 3}, error
    )


def _operation(state: OperationState, error: str = "") -> OperationRecord:
    return OperationRecord("op", "load", state, 0, 3, _PLACEMENT.digest, "ana@host", error)


_SNAPSHOT = ClusterSnapshot(
    revision=9,
    models={
        "ranker": ModelView(
            placement=_PLACEMENT,
            operation=_operation(OperationState.DONE),
            ready={(3, "server-0"): ReadyRecord("i0", _PLACEMENT.digest, 7), (2, "server-1"): ReadyRecord("x", "y", 1)},
        ),
        "words": ModelView(operation=_operation(OperationState.PREPARING)),
    },
    members={
        "server-0": MemberView(_member(0), live=True),
        "server-1": MemberView(_member(1), live=False),
        "server-2": MemberView(_member(2, MemberState.STARTING, "blob ab12: has 3 bytes, expected 4"), live=True),
    },
    routers={"router-0": RouterRecord("r", "10.0.0.9:8500"), "router-1": RouterRecord("r", "10.0.0.10:8500")},
    problems={"/k": "/k: not JSON"},
)
_STATUS = to_json(to_message(router_statistics(), "0.1.0"))
_ANSWERS = {
    "10.0.0.9:8500": Answer(_STATUS),
    "10.0.0.10:8500": Answer(problem="DEADLINE_EXCEEDED: Deadline Exceeded"),
}
_IDLE = Answer({**_STATUS, "regions": [], "lanes": [], "errors": {}})


def test_the_tables() -> None:
    check_golden("status.txt", as_text(describe(_SNAPSHOT, _ANSWERS)) + "\n")


def test_the_json() -> None:
    check_golden("status.json", json.dumps(describe(_SNAPSHOT, _ANSWERS), indent=2) + "\n")


def test_an_empty_cluster_has_headers_only() -> None:
    lines = as_text(describe(ClusterSnapshot(), {})).splitlines()
    assert [line.split()[0] for line in lines if line] == ["SERVER", "ROUTER", "MODEL"]


def test_a_model_without_tables_is_on_no_server() -> None:
    placement = Placement("plain", 1, 1, 2, (), ((), ()), (PackageRef(1, _DIGEST),))
    content = describe(replace(_SNAPSHOT, models={"plain": ModelView(placement=placement)}), _ANSWERS)
    assert content["models"][0] | {"versions": None} == {
        "name": "plain",
        "epoch": 1,
        "versions": None,
        "slots": 2,
        "replicas": 0,
        "servers": [],
        "operation": None,
    }
    assert all(server["slots"] == {} for server in content["servers"])


def test_routers_alone_are_shown_without_the_cluster() -> None:
    lines = as_text(describe_routers({"a:1": "a:1"}, {"a:1": Answer(_STATUS)})).splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "ROUTER", "a:1", "ROUTER", "a:1", "a:1", "PROBLEMS", "router", "router",
    ]  # fmt: skip


def test_a_router_that_batches_nothing_has_no_table_of_batches() -> None:
    text = as_text(describe_routers({"a:1": "a:1"}, {"a:1": _IDLE}))
    assert text.splitlines()[1].split() == ["a:1", "a:1", "410", "0", "3", "-"]
    assert "MODEL" not in text
