"""Holds what is in a directory of the server's own, and has the rest brought there in the background.

A placement serves once all of it that is this server's is there and verified. While something is missing, what is whole
serves, and every new snapshot changes what is fetched: a change that is given up ends its staging at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from cpp_ext import _rpc
from placement.records import Placement, StagingRecord
from placement.snapshot import ClusterSnapshot
from shard_server.desired import DesiredPackage, PackageKey, check_room, desired_packages, merged
from shard_server.holder import Held, current_and_staged
from shard_server.holdings import Holdings
from shard_server.settings import ShardServerSettings
from shard_server.staging.blob_dir import BlobDir
from shard_server.staging.holders import by_promise, holders
from shard_server.staging.origin import KeptManifests, Origin, Source, open_origin
from shard_server.staging.peers import Peer, Peers, PeerTls
from shard_server.staging.rate_limit import RateLimit
from shard_server.staging.service import CHUNK_BYTES
from shard_server.staging.stager import Stager, StagingCounts
from tessera.errors import TesseraError
from tessera.manifest import Manifest

_STOP_TIMEOUT_S = 5.0
Desired = Mapping[PackageKey, DesiredPackage]


class StagedFiles:
    """What `Holdings` reads from: blobs from the directory, manifests from the repository."""

    def __init__(self, blob_dir: BlobDir, origin: Origin) -> None:
        self._dir = blob_dir
        self._manifests = KeptManifests(origin, blob_dir.root / "manifests")

    def read_manifest(self, model: str, version: int) -> Manifest:
        """See `Files.read_manifest`."""
        return self._manifests.read_manifest(model, version)

    def blob_file(self, digest: str, size_bytes: int) -> Path:
        """See `Files.blob_file`: only blobs are asked for that the holder has found to be there and right."""
        return self._dir.path(digest)


class StagedHolder:
    """See the module, and `Holder` for threads."""

    def __init__(
        self,
        server_id: str,
        holdings: Holdings,
        capacity_bytes: int,
        *,
        blob_dir: BlobDir,
        origin: Origin,
        peers: Peers,
        stager: Stager,
        verify_content: bool,
    ) -> None:
        """Fetch from `peers`, else from `origin`; `verify_content`: check by SHA-256 what an earlier process left."""
        self.holdings = holdings
        self.served: frozenset[str] = frozenset()
        self._server_id, self._capacity_bytes, self._verify_content = server_id, capacity_bytes, verify_content
        self._dir, self._origin, self._peers, self._stager = blob_dir, origin, peers, stager
        self._known: dict[str, Desired] = {}
        self._manifests: dict[str, Manifest] = {}

    def hold(self, snapshot: ClusterSnapshot) -> Held:
        """See `Holder.hold`."""
        current, staged = current_and_staged(snapshot)
        try:
            return self._hold(snapshot, current, staged)
        except TesseraError:
            if staged:
                self._hold(snapshot, current, [])
            raise

    def _hold(self, snapshot: ClusterSnapshot, current: Sequence[Placement], staged: Sequence[Placement]) -> Held:
        placements = [placement for placement in (*current, *staged) if self._server_id in placement.servers]
        named = {reference.digest for placement in placements for reference in placement.versions}
        self._manifests = {digest: manifest for digest, manifest in self._manifests.items() if digest in named}
        self._known = {placement.digest: self._desired(placement) for placement in placements}
        wanted = merged(self._known.values())
        check_room(wanted, self.holdings.packages, self._capacity_bytes)
        blobs = {digest: size for package in wanted.values() for digest, size in package.blobs().items()}
        self._dir.need(blobs)
        missing = {digest: size for digest, size in blobs.items() if not self._is_ready(digest, size)}
        held = [placement for placement in placements if placement not in staged]
        self._stager.want(missing, self._sources(snapshot, held, missing))
        lacking = {
            placement.digest
            for placement in placements
            if missing and any(missing.keys() & package.blobs() for package in self._known[placement.digest].values())
        }
        whole = merged(desired for digest, desired in self._known.items() if digest not in lacking)
        if whole != self.holdings.packages:
            self.holdings.apply(whole)
        self.served = frozenset(self._known.keys() - lacking)
        return Held(frozenset(lacking), self._stager.problem)

    def _desired(self, placement: Placement) -> Desired:
        """Return what `placement` gives this server; worked out once."""
        known = self._known.get(placement.digest)
        return known if known is not None else desired_packages([placement], self._server_id, self._manifest)

    def _manifest(self, model: str, version: int, digest: str) -> Manifest:
        """As `Holdings.manifest`, and read once for packages too that are not held yet."""
        if digest not in self._manifests:
            self._manifests[digest] = self.holdings.manifest(model, version, digest)
        return self._manifests[digest]

    def _is_ready(self, digest: str, size_bytes: int) -> bool:
        if not self._verify_content and self._dir.has(digest, size_bytes):
            self._dir.trust(digest)
        return self._dir.is_verified(digest)

    def _sources(
        self, snapshot: ClusterSnapshot, current: Sequence[Placement], missing: Mapping[str, int]
    ) -> Callable[[str], Sequence[Source]]:
        """Return where each missing blob may be had: from the servers that hold it, then from the repository."""
        by_blob = holders(current, self._manifest, missing, self._server_id)
        servers = {server for several in by_blob.values() for server in several}
        addresses = {server: snapshot.address_of(server) for server in servers}
        live = {server for server in servers if server in snapshot.members and snapshot.members[server].live}
        self._peers.keep_only({address for address in addresses.values() if address})
        peers = {server: self._peers.peer(server, address) for server, address in addresses.items() if address}
        return partial(_sources_of, by_blob, addresses, live, peers, self._origin)

    def path_of(self, digest: str) -> Path | None:
        """See `Holder.path_of`."""
        return self._dir.path(digest) if self._dir.is_verified(digest) else None

    def check(self, digest: str, size_bytes: int) -> None:
        """See `Holder.check`: a damaged file is removed, so that the next `hold` has it fetched."""
        self._dir.check(digest, size_bytes)

    def progress(self) -> StagingRecord:
        """See `Holder.progress`."""
        return self._stager.progress()

    def counts(self) -> StagingCounts:
        """See `Holder.counts`."""
        return self._stager.counts()

    def stop(self) -> None:
        """See `Holder.stop`."""
        self._stager.stop(_STOP_TIMEOUT_S)
        self._peers.keep_only(())
        self._dir.close()


def _sources_of(
    by_blob: Mapping[str, tuple[str, ...]],
    addresses: Mapping[str, str],
    live: set[str],
    peers: Mapping[str, Peer],
    origin: Origin,
    digest: str,
) -> list[Source]:
    return [*(peers[server] for server in by_promise(by_blob.get(digest, ()), addresses, live)), origin]


def open_staged_holder(
    settings: ShardServerSettings, tables: _rpc.TableStore, capacity_bytes: int, on_change: Callable[[], None]
) -> StagedHolder:
    """Return a holder for `--blob-dir`; `on_change` is called, on any thread, when `hold` is to be called again.

    Raises:
        FailedPreconditionError: the directory cannot be used.
        InvalidArgumentError: the repository's URL is of a kind that is not known.
        SettingsError: a certificate file cannot be read; names its flag.
    """
    certificate, key, ca = (settings.read_file(name) for name in ("peer_tls_cert", "peer_tls_key", "peer_tls_ca"))
    origin = open_origin(settings.repository)
    chunk_bytes = min(CHUNK_BYTES, settings.max_message_bytes)
    blob_dir = BlobDir(Path(settings.blob_dir), settings.blob_dir_bytes)
    return StagedHolder(
        settings.server_id,
        Holdings(StagedFiles(blob_dir, origin), tables, populate=settings.populate),
        capacity_bytes,
        blob_dir=blob_dir,
        origin=origin,
        peers=Peers(PeerTls(ca, certificate, key) if ca else None, chunk_bytes),
        stager=Stager(
            blob_dir,
            on_change,
            parallel=settings.staging_parallel,
            limit=RateLimit(settings.staging_bytes_per_s),
            chunk_bytes=chunk_bytes,
        ),
        verify_content=settings.verify_blobs == "content",
    )
