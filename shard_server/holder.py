"""Holds what the placements give a server: everything at once from a mounted repository, or what is staged so far.

Both run on a helper thread, one snapshot at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from placement.records import Placement, StagingRecord
from placement.snapshot import ClusterSnapshot, ModelView
from shard_server.desired import check_room, desired_packages
from shard_server.holdings import Holdings
from shard_server.staging.stager import StagingCounts
from tessera.errors import DataLossError, NotFoundError, TesseraError
from tessera.repository import Repository


@dataclass(frozen=True)
class Held:
    """What came of it.

    Attributes:
        lacking: digests of the placements of which something is still missing; what is there of them does not serve.
        problem: why it cannot be had now; empty while it is on its way.
    """

    lacking: frozenset[str] = frozenset()
    problem: str = ""

    def has(self, placement: Placement) -> bool:
        """Whether everything of `placement` that is this server's is held."""
        return placement.digest not in self.lacking

    def has_current(self, view: ModelView) -> bool:
        """Whether everything is held that requests may use, whatever is being prepared beside it."""
        return all(self.has(placement) for placement in view.held if placement not in view.staged)


class Holder(Protocol):
    """Used on one thread at a time, but for `served`, `path_of`, `check` and `progress`, which may be called on any."""

    @property
    def holdings(self) -> Holdings:
        """What serves."""

    @property
    def served(self) -> frozenset[str]:
        """Digests of the placements of which everything that is this server's is held; from any thread."""

    def hold(self, snapshot: ClusterSnapshot) -> Held:
        """Hold what `snapshot` asks for, as far as it is there; what cannot be staged does not harm what is current.

        Raises:
            TesseraError: it cannot be read, verified or mapped, or there is no room for it; what was held still serves.
        """

    def path_of(self, digest: str) -> Path | None:
        """Return the file of a blob that other servers may have, or None."""

    def check(self, digest: str, size_bytes: int) -> None:
        """Read a blob that is held through; on any thread.

        Raises:
            NotFoundError, DataLossError: it is damaged; the next `hold` serves it no more until it is whole again.
        """

    def progress(self) -> StagingRecord:
        """Return how far fetching is."""

    def counts(self) -> StagingCounts:
        """Return what was counted while fetching."""

    def stop(self) -> None:
        """End what runs in the background; what is held goes on to serve. Blocks for as long as that takes."""


def current_and_staged(snapshot: ClusterSnapshot) -> tuple[list[Placement], list[Placement]]:
    """Return the placements that requests may use, and those that are being prepared."""
    views = snapshot.models.values()
    staged = [placement for view in views for placement in view.staged]
    return [placement for view in views for placement in view.held if placement not in view.staged], staged


class MountedHolder:
    """Maps blobs where the repository has them: either all of them are there, or nothing changes."""

    def __init__(self, server_id: str, holdings: Holdings, capacity_bytes: int, repository: Repository) -> None:
        """Hold at most `capacity_bytes` of `repository` as the server `server_id`."""
        self.holdings, self._repository = holdings, repository
        self._damaged: dict[str, int] = {}
        self.served: frozenset[str] = frozenset()
        self._server_id, self._capacity_bytes = server_id, capacity_bytes
        self._done: list[str] | None = None

    def hold(self, snapshot: ClusterSnapshot) -> Held:
        """See `Holder.hold`."""
        self._give_up_damaged()
        current, staged = current_and_staged(snapshot)
        try:
            self._hold([*current, *staged])
        except TesseraError:
            if staged:
                self._hold(current)
            raise
        return Held()

    def _hold(self, placements: Sequence[Placement]) -> None:
        asked = [placement.digest for placement in placements]
        if asked == self._done:
            return
        self._done = None
        desired = desired_packages(placements, self._server_id, self.holdings.manifest)
        if desired != self.holdings.packages:
            check_room(desired, self.holdings.packages, self._capacity_bytes)
            self.holdings.apply(desired)
        self._done = asked
        self.served = frozenset(asked)

    def _give_up_damaged(self) -> None:
        """Stop serving what `check` found to be damaged.

        Raises:
            NotFoundError, DataLossError: it still is.
        """
        damaged = dict(self._damaged)
        for digest in damaged:
            self.holdings.give_up(digest)
            self._done, self.served = None, frozenset()
        for digest, size_bytes in damaged.items():
            self._repository.verify_blob(digest, size_bytes)
            del self._damaged[digest]

    def path_of(self, digest: str) -> Path | None:
        """See `Holder.path_of`."""
        return self.holdings.path_of(digest)

    def check(self, digest: str, size_bytes: int) -> None:
        """See `Holder.check`: a repository is mended by whoever it belongs to."""
        try:
            self._repository.verify_blob(digest, size_bytes)
        except (NotFoundError, DataLossError):
            self._damaged[digest] = size_bytes
            raise

    def progress(self) -> StagingRecord:
        """See `Holder.progress`: nothing is fetched."""
        return StagingRecord()

    def counts(self) -> StagingCounts:
        """See `Holder.counts`: nothing is fetched."""
        return StagingCounts()

    def stop(self) -> None:
        """See `Holder.stop`: nothing runs."""
