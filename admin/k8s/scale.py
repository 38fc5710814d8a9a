"""May the StatefulSet of shard servers become smaller? Only when the servers that would go hold nothing. Pure."""

from __future__ import annotations

import re

from admin.server_command import describe, ids
from placement.records import ServerState
from placement.snapshot import ClusterSnapshot


def in_the_way(snapshot: ClusterSnapshot, servers: int, shard_set: str) -> list[str]:
    """Return why servers with an ordinal of `servers` or above may not go, one text each; empty when they may.

    A server that holds nothing but is not draining could get slots before it is gone.

    Args:
        snapshot: of the cluster.
        servers: how many stay.
        shard_set: name of the StatefulSet, whose pods are servers of the same names.
    """
    problems = []
    for server in ids(snapshot):
        match = re.fullmatch(rf"{re.escape(shard_set)}-(0|[1-9]\d*)", server)
        if match is None or int(match[1]) < servers:
            continue
        content = describe(snapshot, server)
        if content["slots"]:
            problems.append(f"{server} holds slots of {', '.join(content['slots'])}")
        elif content["wanted"] != ServerState.DRAINING.value:
            problems.append(f"{server} may get slots: it is wanted {content['wanted']}, expected DRAINING")
    return problems
