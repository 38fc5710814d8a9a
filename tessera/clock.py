"""Time, injected: decisions take a `Clock`, so that tests need not sleep."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean something."""

    def wall_s(self) -> float:
        """Return seconds since 1970 (UTC), for logs and records that people read; never for deadlines."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        return time.time()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_s: float = 1000.0) -> None:
        """Start both clocks at `now_s`."""
        self._now_s = now_s

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._now_s

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds` ≥ 0."""
        assert seconds >= 0
        self._now_s += seconds
