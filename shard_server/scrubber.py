"""Reads the blobs that are held again, one after the other, all of them within a set time, and finds damaged ones.

Disks and memory go bad while nobody looks; a blob that was right when it was mapped would give wrong rows for ever.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shard_server.holder import Holder
from shard_server.staging.service import stand_back
from tessera.errors import DataLossError, NotFoundError

_log = logging.getLogger("shard_server.scrubber")

_IDLE_S = 1.0
"""How long to wait, at most, before it is looked whether something is held."""


@dataclass(frozen=True)
class ScrubCounts:
    """Blobs that were read again since the start, and how many of them were damaged."""

    read: int = 0
    damaged: int = 0


class Scrubber:
    """See the module. Its thread stands back for lookups, and ends with `stop`.

    Args:
        holder: what is held.
        interval_s: the time for all blobs; they are spread evenly over it.
        on_damage: is called, on that thread, when `Holder.hold` is to be called again.
        start_after: begin behind this digest: at random, so that servers that restart often read all of them too.
    """

    def __init__(
        self, holder: Holder, interval_s: float, on_damage: Callable[[], None], start_after: str | None = None
    ) -> None:
        self._holder, self._interval_s, self._on_damage = holder, interval_s, on_damage
        self._last = secrets.token_hex(32) if start_after is None else start_after
        self._counts = ScrubCounts()
        self._stopping = threading.Event()
        # A daemon: one that hangs on a dead file system must not keep the process.
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)

    @property
    def counts(self) -> ScrubCounts:
        """What was counted since the start; on any thread."""
        return self._counts

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the blob that is being read, at most `timeout_s` later. May be called before `start`."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def step(self) -> float:
        """Read the next blob; return how long to wait before the one after it, seconds."""
        sizes = self._holder.holdings.blob_sizes
        digest = next_after(self._last, sizes)
        if digest is None:
            return min(_IDLE_S, self._interval_s)
        self._last = digest
        damaged = False
        try:
            self._holder.check(digest, sizes[digest])
        except (NotFoundError, DataLossError) as error:
            damaged = digest in self._holder.holdings.blob_sizes  # else it was given up meanwhile
            if damaged:
                _log.error("a blob that was right has become wrong, and is not served any more: %s", error.message)
                self._on_damage()
        self._counts = ScrubCounts(self._counts.read + 1, self._counts.damaged + damaged)
        return self._interval_s / len(sizes)

    def _run(self) -> None:
        stand_back()
        wait_s = min(_IDLE_S, self._interval_s)
        while not self._stopping.wait(wait_s):
            try:
                wait_s = self.step()
            except Exception:  # noqa: BLE001 (a bug, or a disk that answers oddly, must not end it silently)
                _log.exception("reading a blob again failed")
                wait_s = self._interval_s


def next_after(last: str, digests: Iterable[str]) -> str | None:
    """Return the digest that follows `last` in their order, from the last to the first; None without any."""
    every = list(digests)
    return min((digest for digest in every if digest > last), default=min(every, default=None))
