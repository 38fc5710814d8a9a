"""Placements compared and listed, as JSON values for programs and as tables for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from admin.table import render
from admin.traffic_command import versions_json
from placement.records import AuditRecord, CurrentRecord, Placement


def slots_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the slots that were asked for."""
    return render(
        ("SLOT", "WHAT", "SERVERS"),
        [(row["slot"], row["what"], ", ".join(row["servers"]) or "-") for row in found],
        right=("SLOT",),
    )


def diff_json(before: Placement, after: Placement) -> dict[str, Any]:
    """Return what differs between two placements of a model.

    Slots are compared only when both have as many; `slots_moved` have other servers, `slots_reordered` the same ones,
    with another one first.
    """
    same_slots = before.slots == after.slots
    moved: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    gained: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    reordered = 0
    for old_row, new_row in zip(before.slot_servers, after.slot_servers, strict=False) if same_slots else ():
        old = [before.servers[position] for position in old_row]
        new = [after.servers[position] for position in new_row]
        if set(old) != set(new):
            left, came = tuple(s for s in old if s not in new), tuple(s for s in new if s not in old)
            moved[left, came] += 1
            lost.update(left)
            gained.update(came)
        else:
            reordered += old != new
    served = {one.version: one.digest for one in before.versions}
    serves = {one.version: one.digest for one in after.versions}
    return {
        "model": before.model,
        "before": before.epoch,
        "after": after.epoch,
        "layouts": [before.layout, after.layout],
        "slots": [before.slots, after.slots],
        "replicas": [before.replicas, after.replicas],
        "versions_added": [one for one in versions_json(after.versions) if served.get(one["version"]) != one["digest"]],
        "versions_removed": [
            one for one in versions_json(before.versions) if serves.get(one["version"]) != one["digest"]
        ],
        "servers": {
            server: {"gained": gained[server], "lost": lost[server]}
            for server in sorted({*before.servers, *after.servers})
        },
        "slots_moved": sum(moved.values()),
        "slots_reordered": reordered,
        "moves": [
            {"from": list(left), "to": list(came), "slots": count}
            for (left, came), count in sorted(moved.items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def diff_text(content: Mapping[str, Any]) -> str:
    """Return `diff_json` for people."""
    lines = [f"Model      {content['model']}, epoch {content['before']} -> {content['after']}"]
    for name in ("slots", "replicas", "layouts"):
        old, new = content[name]
        if old != new:
            lines.append(f"{name.capitalize():<10} {old} -> {new}")
    for sign, name in (("-", "versions_removed"), ("+", "versions_added")):
        lines += [f"Versions   {sign}{one['version']} ({one['digest'][:12]})" for one in content[name]]
    lines.append(f"Moved      {content['slots_moved']} of {content['slots'][1]} slots")
    if content["slots_reordered"]:
        lines.append(f"Reordered  {content['slots_reordered']} slots have another first server")
    changed = [(name, f"+{c['gained']}", f"-{c['lost']}") for name, c in content["servers"].items() if any(c.values())]
    if changed:
        lines += ["", render(("SERVER", "GAINED", "LOST"), changed, right=("GAINED", "LOST"))]
    if content["moves"]:
        moves = [(", ".join(m["from"]) or "-", ", ".join(m["to"]) or "-", m["slots"]) for m in content["moves"]]
        lines += ["", render(("FROM", "TO", "SLOTS"), moves, right=("SLOTS",))]
    return "\n".join(lines)


def history_json(
    model: str,
    documents: Mapping[int, Placement],
    current: CurrentRecord | None,
    audits: Sequence[tuple[int, AuditRecord]],
) -> list[dict[str, Any]]:
    """Return the placements that are kept, newest first, with what made each of them, where the audit still says so.

    Args:
        model: its name.
        documents: epoch → document.
        current: the pointer.
        audits: (milliseconds after 1970, entry), ascending.
    """
    made = {
        int(words[1]): (wall_ms, record)
        for wall_ms, record in audits
        for words in [record.result.split()]
        if record.model == model and len(words) == 4 and words[0] == "epoch" and words[2:] == ["is", "current"]
    }
    rows = []
    for epoch, placement in sorted(documents.items(), reverse=True):
        wall_ms, record = made.get(epoch, (None, None))
        rows.append(
            {
                "epoch": epoch,
                "current": current is not None and current.epoch == epoch,
                "digest": placement.digest,
                "versions": versions_json(placement.versions),
                "servers": list(placement.servers),
                "replicas": placement.replicas,
                "slots": placement.slots,
                "time": None if wall_ms is None else time_text(wall_ms),
                "command": record.command if record else "",
                "owner": record.owner if record else "",
            }
        )
    return rows


def history_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `history_json` for people."""
    return render(
        ("EPOCH", "VERSIONS", "SERVERS", "REPLICAS", "TIME", "COMMAND"),
        [
            (
                f"{'* ' if row['current'] else ''}{row['epoch']}",
                ", ".join(str(one["version"]) for one in row["versions"]),
                len(row["servers"]),
                row["replicas"],
                row["time"] or "-",
                row["command"] or "-",
            )
            for row in rows
        ],
        right=("EPOCH", "SERVERS", "REPLICAS"),
    )


def time_text(wall_ms: int) -> str:
    """Return a time as people and programs read it, in UTC."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
