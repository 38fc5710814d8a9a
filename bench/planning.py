"""The planner and the state in etcd of a large cluster: 1,000 servers, 16,384 slots, 100 models."""

from __future__ import annotations

import time

import numpy as np

from bench.context import Context, say
from bench.report import Row
from placement.keys import Keys
from placement.plan import Plan, PlanServer, plan_placement
from placement.records import (
    CurrentRecord,
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    PackageRef,
    ReadyRecord,
)

SERVERS, SLOTS, MODELS, REPLICAS = 1000, 16_384, 100, 2
_KEPT_PLACEMENTS = 16
_REF = PackageRef(1, "ab" * 32, ("stable",))


def planning(context: Context) -> list[Row]:
    """Seconds of a first plan and of one more server, and the bytes of everything that etcd would hold."""
    say(f"plan {SERVERS} servers × {SLOTS} slots")
    sizes = np.random.default_rng(1).lognormal(17.0, 0.5, SLOTS).astype(np.int64).tolist()
    servers = [PlanServer(f"server-{n:04d}", f"zone-{n % 8}", 1, 1 << 42) for n in range(SERVERS + 1)]
    begin_s = time.monotonic()
    first = _plan(servers[:-1], sizes, None)
    first_s = time.monotonic() - begin_s
    begin_s = time.monotonic()
    grown = _plan(servers, sizes, first)
    grown_s = time.monotonic() - begin_s
    model_bytes, member_bytes = _state_bytes(grown)
    total_bytes = MODELS * model_bytes + SERVERS * member_bytes
    return [
        Row(
            name="plan_1000_servers_s",
            value=max(first_s, grown_s),
            unit=f"s for one model of {SLOTS:,} slots, two replicas",
            goal=10.0,
            goal_on="value",
            higher_is_better=False,
            detail={
                "first_s": round(first_s, 2),
                "one_more_server_s": round(grown_s, 2),
                "moved_bytes": float(grown.moved_bytes),
                "minimum_moved_bytes": float(grown.minimum_moved_bytes),
                "max_over_average": grown.max_over_average,
            },
        ),
        Row(
            name="etcd_placement_bytes",
            value=len(grown.placement.to_bytes()),
            unit="bytes of the placement document",
            goal=1e6,
            goal_on="value",
            higher_is_better=False,
        ),
        Row(
            name="etcd_state_bytes",
            value=total_bytes,
            unit=f"bytes of keys and values, {MODELS} models with {_KEPT_PLACEMENTS} placements, all in an operation",
            detail={"per_model": float(model_bytes), "per_server": float(member_bytes)},
        ),
    ]


def _plan(servers: list[PlanServer], sizes: list[int], before: Plan | None) -> Plan:
    return plan_placement(
        model="ranker",
        epoch=2 if before else 1,
        versions=(_REF,),
        servers=servers,
        slot_bytes=sizes,
        replicas=REPLICAS,
        current=before.placement if before else None,
    )


def _state_bytes(plan: Plan) -> tuple[int, int]:
    """Return the bytes of one model, with a report of every server, and of one server."""
    keys, placement = Keys("default"), plan.placement
    document, digest = placement.to_bytes(), placement.digest
    current = CurrentRecord(1, 1, digest, "ab" * 16, (_REF,)).to_bytes()
    operation = OperationRecord(
        "ab" * 16, "reshard", OperationState.PREPARING, 1, 2, digest, "somebody@somewhere", base_digest=digest
    ).to_bytes()
    ready = ReadyRecord("ab" * 18, digest, 1 << 40).to_bytes()
    model_bytes = (
        _KEPT_PLACEMENTS * (len(keys.placement("ranker", 1)) + len(document))
        + len(keys.current("ranker") + keys.operation("ranker"))
        + len(current + operation)
        + SERVERS * (len(keys.ready("ranker", 1, "server-0000")) + len(ready))
    )
    models = {f"model-{number:03d}": 1 for number in range(MODELS)}
    member = MemberRecord(
        "ab" * 18, "10.0.0.1:8600", "0.1.0", MemberState.SERVING, "zone-1", 1 << 42, 1 << 40, models, released=models
    )
    return model_bytes, len(keys.member("server-0000")) + len(member.to_bytes())


CASES = {"planning": planning}
