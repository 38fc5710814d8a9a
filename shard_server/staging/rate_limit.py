"""Bytes per second, shared by threads. Decides how long to wait; waits for nothing itself."""

from __future__ import annotations

import threading

from tessera.clock import Clock, SystemClock

BURST_S = 0.1
"""How much of what was not used may be caught up with."""


class RateLimit:
    """A schedule: each piece begins when those before it would have ended at the given rate. Thread-safe."""

    def __init__(self, bytes_per_s: int, clock: Clock | None = None) -> None:
        """`bytes_per_s` 0 means no limit."""
        self.bytes_per_s = bytes_per_s
        self._clock = clock or SystemClock()
        self._free_s = self._clock.monotonic_s()
        self._lock = threading.Lock()

    def reserve(self, count: int) -> float:
        """Take the next `count` bytes of the schedule, and return how many seconds to wait before they are moved."""
        if not self.bytes_per_s:
            return 0.0
        with self._lock:
            now_s = self._clock.monotonic_s()
            begin_s = max(self._free_s, now_s - BURST_S)
            self._free_s = begin_s + count / self.bytes_per_s
            return max(0.0, begin_s - now_s)
