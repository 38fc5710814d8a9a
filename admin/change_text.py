"""Plans and operations as tables for people and as JSON values for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin.staging_text import expected_s, rate_of, staging_json, staging_line, staging_text, total_of
from admin.table import render
from placement.change_marks import Held
from placement.change_plan import ChangePlan
from placement.change_steps import ABORTABLE, Wait, next_step
from placement.found import Found
from placement.records import OperationRecord
from tessera.errors import TesseraError
from tessera.settings import format_bytes


def plan_json(model: str, plan: ChangePlan) -> dict[str, Any]:
    """Return everything that a plan says."""
    found = plan.change.found if plan.change else None
    return {
        "model": model,
        "changed": plan.change is not None,
        "command": plan.change.command if plan.change else "",
        "epoch": found.current.epoch if found and found.current else None,
        "epochs": [target.epoch for target in plan.change.targets] if plan.change else [],
        "servers": [
            {
                "id": row.id,
                "slots_now": row.slots_now,
                "slots_after": row.slots_after,
                "bytes_now": row.bytes_now,
                "bytes_after": row.bytes_after,
                "peak_bytes": row.peak_bytes,
                "limit_bytes": row.limit_bytes,
            }
            for row in plan.servers
        ],
        "moved_slots": plan.moved_slots,
        "slots": plan.slots,
        "moved_bytes": plan.moved_bytes,
        "minimum_moved_bytes": plan.minimum_moved_bytes,
        "expected_s": expected_s(plan),
        "expected_bytes_per_s": rate_of(plan),
        "max_over_average": plan.max_over_average,
        "checks": {check.name: check.problem for check in plan.checks},
    }


def plan_text(model: str, plan: ChangePlan) -> str:
    """Return a plan for people."""
    if plan.change is None:
        return f"model {model}: nothing to change"
    change, targets = plan.change, plan.change.targets
    now = change.found.current.epoch if change.found.current else 0
    waves = f", {len(targets)} waves" if len(targets) > 1 else ""
    epochs = f"{targets[0].epoch}..{targets[-1].epoch}" if len(targets) > 1 else str(targets[0].epoch)
    table = render(
        ("SERVER", "SLOTS NOW", "SLOTS AFTER", "BYTES NOW", "BYTES AFTER", "PEAK", "LIMIT"),
        [
            (
                row.id,
                row.slots_now,
                row.slots_after,
                format_bytes(row.bytes_now),
                format_bytes(row.bytes_after),
                format_bytes(row.peak_bytes),
                format_bytes(row.limit_bytes) if row.limit_bytes is not None else "-",
            )
            for row in plan.servers
        ],
        right=("SLOTS NOW", "SLOTS AFTER", "BYTES NOW", "BYTES AFTER", "PEAK", "LIMIT"),
    )
    share = plan.moved_slots / plan.slots
    moved = (
        f"Moves {plan.moved_slots} of {plan.slots} slots ({share:.1%}), {format_bytes(plan.moved_bytes)} (minimum "
        f"{format_bytes(plan.minimum_moved_bytes)}), about {expected_s(plan):.0f} s at "
        f"{format_bytes(rate_of(plan))}/s per server. max/avg after: {plan.max_over_average:.3f}"
    )
    checks = "\n".join(f"  {check.name}: {check.problem or 'OK'}" for check in plan.checks)
    head = f"Operation  {change.command} (model {model}, epoch {now} -> {epochs}{waves})"
    return f"{head}\n{table}\n{moved}\nChecks\n{checks}"


def operation_json(model: str, operation: OperationRecord) -> dict[str, Any]:
    """Return an operation."""
    return {
        "model": model,
        "operation": operation.id,
        "kind": operation.kind,
        "command": operation.command,
        "state": operation.state.value,
        "owner": operation.owner,
        "base_epoch": operation.base_epoch,
        "target_epoch": operation.target_epoch,
        "origin_epoch": operation.origin_epoch,
        "waves_left": len(operation.later_digests),
        "error": operation.error,
        "paused": operation.paused,
        "held": operation.hold,
        "verified": operation.verified_epoch == operation.target_epoch,
        "resumable": operation.active and operation.kind != "load",
        "abortable": operation.state in ABORTABLE and operation.kind != "load",
    }


def operation_text(model: str, operation: OperationRecord) -> str:
    """Return an operation in a line."""
    what = operation.command or operation.kind
    error = f": {operation.error}" if operation.error else ""
    left = f", {len(operation.later_digests)} waves left" if operation.later_digests else ""
    marks = [("paused", operation.paused), ("held", operation.hold)] if operation.active else []
    left += "".join(f", {name}" for name, is_so in marks if is_so)
    epochs = f"epoch {operation.base_epoch} -> {operation.target_epoch}{left}"
    return f"model {model}: {what}: {operation.state.value}{error} ({epochs}, operation {operation.id})"


def status_json(found: Found) -> dict[str, Any]:
    """Return how the model's operation stands, with each server's and router's part in it."""
    operation = found.operation
    assert operation is not None
    placements = [p for p in (found.base, found.target) if p is not None]
    servers = sorted({server for placement in placements for server in placement.servers})
    return operation_json(found.model, operation) | {
        "next": next_action(found),
        "staging": total_of(found.members[server].staging for server in servers if server in found.members),
        "servers": [_server(found, operation, server) for server in servers],
        "routers": [
            {
                "id": router,
                "pinned": record.pinned.get(found.model),
                "prepared": record.prepared.get(found.model),
            }
            for router, record in sorted(found.routers.items())
        ],
    }


def _server(found: Found, operation: OperationRecord, server: str) -> dict[str, Any]:
    member, report = found.members.get(server), found.ready.get((operation.target_epoch, server))
    ready = report is not None and member is not None and report[1].instance == member.instance
    return {
        "id": server,
        "state": member.state.value if member else "LOST",
        "ready": ready,
        "ready_bytes": report[1].bytes if report and ready else 0,
        "bytes_used": member.bytes_used if member else 0,
        "epoch": member.epochs.get(found.model) if member else None,
        "error": member.error if member else "",
        "staging": staging_json(member.staging) if member else None,
    }


def next_action(found: Found) -> str:
    """Return, in words, what happens next or is waited for."""
    try:
        step = next_step(found, committed_for_s=0.0, grace_s=0.0)
    except TesseraError as error:
        return error.message
    if isinstance(step, Held):
        return step.what
    return f"waiting for {step.what}" if isinstance(step, Wait) else type(step).__name__.lower()


def status_text(content: Mapping[str, Any]) -> str:
    """Return `status_json` for people."""
    left = f", {content['waves_left']} waves left" if content["waves_left"] else ""
    lines = [
        f"Operation  {content['command'] or content['kind']} of {content['owner']} ({content['operation']})",
        f"State      {content['state']}, epoch {content['base_epoch']} -> {content['target_epoch']}{left}",
        f"Next       {content['next']}",
        f"Can be     resumed: {_yes(content['resumable'])}, aborted: {_yes(content['abortable'])}",
    ]
    if content["staging"]["total_bytes"]:
        lines.append(f"Staging    {staging_line(content['staging'])}")
    if content["error"]:
        lines.append(f"Error      {content['error']}")
    lines += [
        f"Trouble    {s['id']}: {s['staging']['problem']}"
        for s in content["servers"]
        if s["staging"] and s["staging"]["problem"]
    ]
    servers = render(
        ("SERVER", "STATE", "READY", "HELD", "STAGED", "RATE", "LEFT", "EPOCH SEEN", "ERROR"),
        [
            (
                *(s["id"], s["state"], _yes(s["ready"]), format_bytes(s["bytes_used"])),
                *staging_text(s["staging"]),
                *(s["epoch"] or "-", s["error"] or "-"),
            )
            for s in content["servers"]
        ],
        right=("HELD", "STAGED", "RATE", "LEFT", "EPOCH SEEN"),
    )
    routers = render(
        ("ROUTER", "OLDEST EPOCH IN USE", "NEWEST PREPARED"),
        [(r["id"], r["pinned"] or "-", r["prepared"] or "-") for r in content["routers"]],
        right=("OLDEST EPOCH IN USE", "NEWEST PREPARED"),
    )
    return "\n".join(lines) + f"\n\n{servers}\n\n{routers}"


def _yes(value: object) -> str:
    return "yes" if value else "no"
