"""Which servers of a placement can be counted on, from what is known of the cluster. Pure."""

from __future__ import annotations

from placement.records import MemberState, Placement
from placement.snapshot import ClusterSnapshot


def is_ready(snapshot: ClusterSnapshot, server: str, placement: Placement) -> bool:
    """Return whether a server is there, serves without complaint, and has taken up the placement."""
    member = snapshot.members.get(server)
    return (
        member is not None
        and member.live
        and member.record.state is MemberState.SERVING
        and not member.record.error
        and member.record.epochs.get(placement.model, 0) >= placement.epoch
    )


def unready_servers(snapshot: ClusterSnapshot, placement: Placement) -> list[str]:
    """Return the servers of a placement that are not ready, in its order."""
    return [server for server in placement.servers if not is_ready(snapshot, server, placement)]


def fewest_ready_owners(snapshot: ClusterSnapshot, placement: Placement) -> int:
    """Return how many ready servers the slot has that has the fewest. REQUIRED: the placement has servers.

    Cost: some milliseconds where a server of a large placement is not ready, else nothing.
    """
    unready = set(unready_servers(snapshot, placement))
    if not unready:
        return placement.replicas
    positions = {position for position, server in enumerate(placement.servers) if server in unready}
    return min(sum(position not in positions for position in row) for row in placement.slot_servers)
