"""What a shard server does between SIGTERM and refusing: it answers on while routers go elsewhere."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from cpp_ext import _rpc
from placement.snapshot import ClusterSnapshot
from shard_server.desired import slots_of_one
from shard_server.settings import ShardServerSettings

_log = logging.getLogger("shard_server.last_lookups")

QUIET_S = 0.1
"""A draining server without a lookup for this long is asked no more."""


async def answer_last_lookups(server: _rpc.Server, snapshot: ClusterSnapshot, settings: ShardServerSettings) -> None:
    """Return when no lookup comes any more, or the time for routers to go elsewhere is over."""
    notice_s = settings.drain_notice_s
    if alone := slots_of_one(snapshot, settings.server_id):
        notice_s = max(notice_s, settings.drain_timeout_s)
        _log.error(
            "only this server has %s: requests for them will fail; answering for another %g s at most",
            ", ".join(f"{slots} slots of model {name}" for name, slots in sorted(alone.items())),
            notice_s,
        )
    seen = -1
    with suppress(TimeoutError):
        async with asyncio.timeout(notice_s):
            while (stats := server.stats())["calls_started"] != seen or stats["calls_in_flight"]:
                seen = stats["calls_started"]
                await asyncio.sleep(QUIET_S)
