"""How far fetching is, and how fast: counted over the last seconds. Pure but for the clock that it is given."""

from __future__ import annotations

from collections import deque

from placement.records import StagingRecord
from tessera.clock import Clock

WINDOW_S = 10.0
"""The time over which the rate is measured."""
_SAMPLES = 32


class Progress:
    """Counts one run after the other: from when something is missing until nothing is. Not thread-safe."""

    def __init__(self, clock: Clock, limit_bytes_per_s: int) -> None:
        """`limit_bytes_per_s` is only told, 0 for none."""
        self._clock, self._limit_bytes_per_s = clock, limit_bytes_per_s
        self._whole_bytes = 0
        self._left_bytes = 0
        self._partial: dict[str, int] = {}
        self._samples = deque([(clock.monotonic_s(), 0)], maxlen=_SAMPLES)
        self._bytes_per_s = 0
        self._problem = ""
        self.problems = 0
        """How often something went wrong with a source since the start."""
        self.fetched_bytes = 0
        """Read from sources since the start, what was thrown away included."""

    def expect(self, left_bytes: int) -> None:
        """Say how many bytes the blobs have that are missing, what is there of them included."""
        if left_bytes and not self._left_bytes:
            self._whole_bytes = self._bytes_per_s = 0
            self._samples = deque([(self._clock.monotonic_s(), self.fetched_bytes)], maxlen=_SAMPLES)
        self._left_bytes = left_bytes

    def begun(self, digest: str, offset: int) -> None:
        """Say how much of a blob is there."""
        self._partial[digest] = offset

    def fetched(self, count: int) -> None:
        """Count bytes that were read from a source."""
        self.fetched_bytes += count
        now_s = self._clock.monotonic_s()
        first_s, first_bytes = self._samples[0]
        if now_s - self._samples[-1][0] >= WINDOW_S / _SAMPLES:
            self._samples.append((now_s, self.fetched_bytes))
        if now_s > first_s:
            self._bytes_per_s = round((self.fetched_bytes - first_bytes) / (now_s - first_s))

    def ended(self, digest: str, size_bytes: int) -> None:
        """Say that a missing blob is whole, or, with 0, that it is no longer being fetched."""
        self._partial.pop(digest, None)
        size_bytes = min(size_bytes, self._left_bytes)
        self._whole_bytes += size_bytes
        self._left_bytes -= size_bytes

    def tell(self, problem: str) -> None:
        """Keep the newest thing that went wrong with a source: for people, it decides nothing."""
        self._problem = problem
        self.problems += 1

    def record(self) -> StagingRecord:
        """Return what the server says of it."""
        total_bytes = self._whole_bytes + self._left_bytes
        return StagingRecord(
            done_bytes=min(total_bytes, self._whole_bytes + sum(self._partial.values())),
            total_bytes=total_bytes,
            bytes_per_s=self._bytes_per_s,
            limit_bytes_per_s=self._limit_bytes_per_s,
            problem=self._problem,
        )
