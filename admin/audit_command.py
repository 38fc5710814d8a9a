"""`tessera audit`: who changed what, newest first.

Every command that changes a cluster leaves an entry, in the transaction that makes the change. The newest 256 are kept.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output
from admin.output import show
from admin.placement_text import time_text
from admin.table import render
from placement.audit import KEPT_AUDITS
from placement.keys import Keys, Kind
from placement.records import AuditRecord
from placement.store import Store
from tessera.errors import InvalidArgumentError

_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("audit", help="show who changed what", description=__doc__)
    parser.add_argument("--model", metavar="MODEL", help="only changes of this model")
    parser.add_argument(
        "--since", metavar="TIME", help="only changes since then: 90m, 2h, 3d or an ISO time such as 2026-11-21T08:00Z"
    )
    parser.add_argument("--until", metavar="TIME", help="only changes before then")
    parser.add_argument("--operation", metavar="ID", help="only those of one operation")
    parser.add_argument(
        "--limit", type=int, default=50, metavar="N", help=f"at most so many, 1 to {KEPT_AUDITS} (default: %(default)s)"
    )
    add_cluster(parser)
    add_output(parser)
    parser.set_defaults(run=lambda options: changes.run_verb(options, _audit))


def parse_time(text: str, flag: str, now: datetime) -> int:
    """Return milliseconds after 1970 of `2h` (ago) or an ISO time; one without a zone is UTC.

    Raises:
        InvalidArgumentError: it is neither.
    """
    expected = f"{flag}: got {text!r}, expected 90m, 2h, 3d or an ISO time such as 2026-11-21T08:00Z"
    try:
        if ago := _AGO.fullmatch(text):
            moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(expected) from None


def select(
    entries: Sequence[tuple[int, AuditRecord]],
    *,
    model: str | None,
    operation: str | None,
    since_ms: int | None,
    until_ms: int | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return the newest `limit` of `entries` (by ascending time) that match, newest first."""
    rows = [
        {
            "time": time_text(wall_ms),
            "model": record.model,
            "command": record.command,
            "result": record.result,
            "owner": record.owner,
            "operation": record.operation,
        }
        for wall_ms, record in reversed(entries)
        if model in (None, record.model)
        and operation in (None, record.operation)
        and (since_ms is None or wall_ms >= since_ms)
        and (until_ms is None or wall_ms < until_ms)
    ]
    return rows[:limit]


async def read_audits(store: Store, keys: Keys) -> list[tuple[int, AuditRecord]]:
    """Return (milliseconds after 1970, entry), by ascending time."""
    audits = []
    for entry in (await store.list_prefix(keys.audits)).entries:
        parsed = keys.parse(entry.key)
        if parsed is not None and parsed.kind is Kind.AUDIT:
            audits.append((int(parsed.id.partition("-")[0]), AuditRecord.from_bytes(entry.value, entry.key)))
    return audits


async def _audit(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    if not 1 <= options.limit <= KEPT_AUDITS:
        raise InvalidArgumentError(f"--limit: got {options.limit}, expected 1 to {KEPT_AUDITS}")
    now = datetime.fromtimestamp(time.time(), UTC)
    since, until = (
        None if text is None else parse_time(text, flag, now)
        for text, flag in ((options.since, "--since"), (options.until, "--until"))
    )
    rows = select(
        await read_audits(store, keys),
        model=options.model, operation=options.operation, since_ms=since, until_ms=until, limit=options.limit,
    )  # fmt: skip
    table = render(
        ("TIME", "MODEL", "COMMAND", "RESULT", "BY"),
        [(row["time"], row["model"] or "-", row["command"], row["result"], row["owner"]) for row in rows],
    )
    show(options, rows, table)
