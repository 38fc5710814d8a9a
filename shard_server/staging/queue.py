"""What is to be staged next: blobs that are wanted, with pauses for those that could not be had. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tessera.clock import Clock

RETRY_DELAYS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses before a blob is tried again; the last one repeats."""


@dataclass
class _Failure:
    count: int
    again_s: float
    problem: str


@dataclass
class StagingQueue:
    """The wanted blobs (digest → bytes): waiting, being fetched, or failed and to be tried again. Not thread-safe."""

    clock: Clock
    retry_delays_s: Sequence[float] = RETRY_DELAYS_S
    _wanted: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, None] = field(default_factory=dict)
    _active: set[str] = field(default_factory=set)
    _failures: dict[str, _Failure] = field(default_factory=dict)

    def want(self, blobs: Mapping[str, int]) -> None:
        """Replace what is wanted; what is being fetched, or has failed, stays so if it still is."""
        self._wanted = dict(blobs)
        self._failures = {digest: one for digest, one in self._failures.items() if digest in blobs}
        taken = self._active | self._failures.keys()
        self._waiting = dict.fromkeys(digest for digest in blobs if digest not in taken)

    def is_wanted(self, digest: str) -> bool:
        """Whether it is worth going on with."""
        return digest in self._wanted

    @property
    def left(self) -> Mapping[str, int]:
        """What is wanted and not there yet."""
        return self._wanted

    @property
    def problem(self) -> str:
        """Why a wanted blob could not be had, if one could not; says how many there are."""
        if not self._failures:
            return ""
        first = next(iter(self._failures.values())).problem
        more = f" (and {len(self._failures) - 1} more blobs)" if len(self._failures) > 1 else ""
        return first + more

    def take(self) -> tuple[str, int] | None:
        """Return a blob to fetch now, or None."""
        now_s = self.clock.monotonic_s()
        for digest, failure in self._failures.items():
            if failure.again_s <= now_s and digest not in self._active:
                self._active.add(digest)
                return digest, self._wanted[digest]
        for digest in self._waiting:
            del self._waiting[digest]
            self._active.add(digest)
            return digest, self._wanted[digest]
        return None

    def pause_s(self) -> float | None:
        """Return how long it takes until a failed blob may be tried again; None: no such blob."""
        waits = [one.again_s for digest, one in self._failures.items() if digest not in self._active]
        return max(0.0, min(waits) - self.clock.monotonic_s()) if waits else None

    def done(self, digest: str) -> None:
        """Say that a blob that was taken is there."""
        self._active.discard(digest)
        self._failures.pop(digest, None)
        self._wanted.pop(digest, None)

    def given_up(self, digest: str) -> None:
        """Say that a blob that was taken is not fetched any more; it waits again if it has come to be wanted again."""
        self._active.discard(digest)
        if digest in self._wanted and digest not in self._failures:
            self._waiting[digest] = None

    def failed(self, digest: str, problem: str) -> None:
        """Say that a blob that was taken could not be had."""
        self._active.discard(digest)
        if digest not in self._wanted:
            return
        count = self._failures[digest].count + 1 if digest in self._failures else 1
        delay_s = self.retry_delays_s[min(count, len(self.retry_delays_s)) - 1]
        self._failures[digest] = _Failure(count, self.clock.monotonic_s() + delay_s, problem)
