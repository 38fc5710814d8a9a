"""Progress of long work on stderr: one line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tessera.settings import format_bytes


class Progress:
    """Shows bytes done of all, rate and time left. A context manager; the last state stays visible."""

    def __init__(self, what: str, *, stream: TextIO | None = None, plain_interval_s: float = 5.0) -> None:
        """`what` names the work; off a terminal a line is printed every `plain_interval_s` at most."""
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._interval_s = 0.1 if self._stream.isatty() else plain_interval_s
        self._started_s = time.monotonic()
        self._shown_s = float("-inf")
        self._last = (0, 0)

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Tell how far the work is."""
        self._last = (done_bytes, total_bytes)
        if time.monotonic() - self._shown_s >= self._interval_s:
            self._show()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last[1]:
            self._show()
        if self._stream.isatty() and self._last[1]:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self) -> None:
        self._shown_s = time.monotonic()
        done_bytes, total_bytes = self._last
        elapsed_s = max(self._shown_s - self._started_s, 1e-3)
        rate = done_bytes / elapsed_s
        left = f", {(total_bytes - done_bytes) / rate:.0f} s left" if 0 < done_bytes < total_bytes else ""
        share = done_bytes / total_bytes if total_bytes else 1.0
        pace = f"{format_bytes(rate)}/s, {elapsed_s:.0f} s{left}"
        text = f"{self._what}: {share:4.0%} of {format_bytes(total_bytes)}, {pace}"
        self._stream.write(f"\r{text:<79}" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()


def say(text: str) -> None:
    """Tell the user, on stderr, what is being done."""
    print(f"tessera: {text}", file=sys.stderr, flush=True)
