"""Each point of `tessera cluster check`, from snapshots made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from admin.cluster_checks import check_cluster
from placement.peers import PeerAnswer, PeerAnswers
from placement.records import (
    CurrentRecord,
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    ReadyRecord,
    RouterRecord,
)
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from support.fake_cluster import KEYS, MODEL, make_placement

PLACEMENT = make_placement(3, "ab", replicas=2)
CURRENT = CurrentRecord(1, 3, PLACEMENT.digest, "o", PLACEMENT.versions)
MEMBER = MemberRecord("i", "h", "b", MemberState.SERVING, "d", 10, 5, {MODEL: 3})
OPERATION = OperationRecord("o", "reshard", OperationState.PREPARING, 3, 4, "x", "ana", command="reshard m --add=c")


def _peer(server: str, current: CurrentRecord = CURRENT, offset_s: float = 0.0) -> PeerAnswer:
    return PeerAnswer(server, {KEYS.current(MODEL): current.to_bytes()}, offset_s, 0.01)


def _problems(
    *,
    view: dict[str, Any] | None = None,
    members: dict[str, MemberView] | None = None,
    peers: PeerAnswers | None = None,
    locked: set[str] | None = None,
    known_routers: tuple[str, ...] = ("r",),
    pinned: int = 3,
    problems: dict[str, str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return the points that are not as they should be in a cluster that is well but for the arguments."""
    snapshot = ClusterSnapshot(
        models={MODEL: replace(ModelView(current=CURRENT, placement=PLACEMENT), **(view or {}))},
        members={"a": MemberView(MEMBER, True), "b": MemberView(MEMBER, True)} | (members or {}),
        routers={"r": RouterRecord("i", "h", {MODEL: pinned}, {MODEL: 3})},
        problems=problems or {},
    )
    answers = peers or PeerAnswers({"h:1": _peer("a"), "h:2": _peer("b")}, {})
    findings = check_cluster(KEYS, snapshot, locked or set(), answers, known_routers, max_clock_offset_s=5.0)
    assert len(findings) == 9
    return {finding.name: finding.problems for finding in findings if finding.problems}


def test_a_cluster_that_is_well() -> None:
    assert _problems() == {}
    assert _problems(view={"operation": OPERATION}, locked={MODEL}) == {}
    assert _problems(view={"operation": replace(OPERATION, paused=True)}) == {}


def _changed(**changes: Any) -> MemberView:
    return MemberView(replace(MEMBER, **changes), True)


@pytest.mark.parametrize(
    ("settings", "name", "says"),
    [
        ({"problems": {"k": "k: not JSON"}}, "records are whole", "k: not JSON"),
        (
            {"members": {"b": MemberView(MEMBER, False)}},
            "every slot has all its replicas",
            "model m: 12 of 12 slots have fewer than 2 ready owners, 0 have none: b is gone",
        ),
        ({"members": {"b": _changed(error="on fire")}}, "every slot has all its replicas", "b cannot: on fire"),
        ({"members": {"b": _changed(state=MemberState.DRAINING)}}, "every slot has all its replicas", "b is DRAINING"),
        (
            {"members": {"b": _changed(epochs={MODEL: 2})}},
            "epochs agree",
            "model m: server b has seen epoch 2, current is 3",
        ),
        ({"pinned": 2}, "epochs agree", "model m: router r uses epoch 2, current is 3"),
        ({"peers": PeerAnswers({}, {"h:1": "shard server h:1: UNAVAILABLE"})}, "servers answer", "UNAVAILABLE"),
        (
            {"peers": PeerAnswers({"h:1": _peer("a", replace(CURRENT, epoch=9))}, {})},
            "servers and store name the same placements",
            "server a has seen (generation, epoch) (1, 9), the store has (1, 3): it has gone back",
        ),
        (
            {"peers": PeerAnswers({"h:1": _peer("a", replace(CURRENT, digest="f" * 64))}, {})},
            "servers and store name the same placements",
            f"server a has digest {'f' * 64} for (generation, epoch) (1, 3)",
        ),
        (
            {"members": {"c": _changed()}},
            "no orphans",
            "server c: holds 5 bytes and no placement names it",
        ),
        ({"view": {"ready": {(4, "a"): ReadyRecord("i", "d", 1)}}}, "no orphans", "reports for epoch 4"),
        (
            {"view": {"operation": OPERATION}},
            "no stuck operation",
            "reshard m --add=c of ana is PREPARING and nobody drives it; `tessera reshard resume m`",
        ),
        ({"known_routers": ("r", "gone")}, "every router is heard of", "router gone: may send requests"),
        (
            {"peers": PeerAnswers({"h:1": _peer("a", offset_s=-61.0)}, {})},
            "clocks agree",
            "server a: its clock is -61.0 s from ours, expected at most 5 s",
        ),
    ],
)
def test_each_point_that_is_not_as_it_should_be(settings: dict[str, Any], name: str, says: str) -> None:
    problems = _problems(**settings)
    assert says in "; ".join(problems[name])
    if not settings.get("members"):  # a server that is not well is told by several points
        assert set(problems) == {name}
