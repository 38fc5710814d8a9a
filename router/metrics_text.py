"""The text for Prometheus, wherever it is asked for; what it needs is imported when it first is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from router.statistics import RouterStatistics


def metrics_text(read: Callable[[], RouterStatistics], build: str) -> Callable[[], bytes]:
    """Return what makes the text; it may be called on any thread. `build` is the version of the software."""

    @cache
    def made() -> Callable[[], bytes]:
        from router.metrics import MetricsText, RouterCollector  # most of the library's import time is of no use before

        return MetricsText(RouterCollector(read, build).collect)

    return lambda: made()()
