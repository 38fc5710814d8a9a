"""Which servers have a blob, by the placements, and in which order they are asked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from placement.records import Placement
from placement.slots import slot_of
from tessera.manifest import Manifest


def holders(
    placements: Iterable[Placement],
    manifest_of: Callable[[str, int, str], Manifest],
    missing: Collection[str],
    server_id: str,
) -> dict[str, tuple[str, ...]]:
    """Return, for each blob of `missing` that another server holds, the servers that do.

    Each blob has its own of them first, so that many blobs spread over all.

    Args:
        placements: those that are held now, of all models: equal content has equal names everywhere.
        manifest_of: returns the manifest of (model, version, digest).
        missing: digests.
        server_id: this server, which is left out.

    Cost: a look at each bucket, and a hash for those that are missing.
    """
    wanted = frozenset(missing)
    found: dict[str, set[str]] = {}
    for placement in placements if wanted else ():
        for reference in placement.versions:
            for table in manifest_of(placement.model, reference.version, reference.digest).tables:
                for bucket, digest in enumerate(table.blobs):
                    if digest in wanted:
                        owners = placement.slot_servers[slot_of(table.name, bucket, placement.slots)]
                        found.setdefault(digest, set()).update(placement.servers[position] for position in owners)
    return {digest: turned(digest, servers - {server_id}) for digest, servers in found.items()}


def turned(digest: str, servers: Collection[str]) -> tuple[str, ...]:
    """Return `servers` in an order that begins at a place which `digest` decides."""
    names = sorted(servers)
    first = int(digest[:8], 16) % len(names) if names else 0
    return (*names[first:], *names[:first])


def by_promise(servers: Iterable[str], addresses: Mapping[str, str], live: Collection[str]) -> list[str]:
    """Return the servers whose address is known: those that are heard of first, else in the order given."""
    known = [server for server in servers if addresses.get(server)]
    return sorted(known, key=lambda server: server not in live)
