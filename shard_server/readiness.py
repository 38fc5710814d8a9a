"""What keeps a shard server from being ready: a pure function of what it knows, for probes.

Ready means that it holds all that the current placements give it. What is staged for a change does not count, because
no router asks for it yet; nor does etcd: a server that has lost it goes on answering.
"""

from __future__ import annotations

from collections.abc import Collection

from placement.snapshot import ClusterSnapshot


def missing(
    snapshot: ClusterSnapshot, server_id: str, served: Collection[str], *, draining: bool, problem: str
) -> list[str]:
    """Return what is missing, one short text each; empty when the server is ready.

    Args:
        snapshot: what is known of the cluster.
        server_id: this server.
        served: digests of the placements of which it holds all that they give it.
        draining: it is about to end.
        problem: why the last attempt to hold what is asked for failed; empty when it did not.
    """
    if draining:
        return ["the server is draining"]
    if snapshot.revision == 0:
        return ["the placement has not been read yet"]
    why = f": {problem}" if problem else ""
    return [
        f"model {placement.model}: epoch {placement.epoch} is not loaded yet{why}"
        for view in snapshot.models.values()
        if (placement := view.placement) is not None
        and server_id in placement.servers
        and placement.digest not in served
    ]
