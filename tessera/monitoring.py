"""Makes the port for Prometheus and probes; what it needs is imported when it is first needed, for its import time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from tessera.process_settings import ProcessSettings, host_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from tessera.monitoring_port import MonitoringPort

Collect: TypeAlias = "Callable[[], Iterable[Metric]]"

_log = logging.getLogger("tessera.monitoring")


def open_monitoring(
    settings: ProcessSettings, listen: str, *, metrics: Callable[[], bytes], missing: Callable[[], Sequence[str]]
) -> MonitoringPort | None:
    """Return the port, serving, on the host of `listen`; None where the settings say that there is none.

    `metrics` and `missing` as `MonitoringPort` has them.

    Raises:
        UnavailableError: the address cannot be bound; names it.
    """
    if settings.metrics_port is None:
        return None
    from tessera.monitoring_port import METRICS_PATHS, MonitoringPort

    port = MonitoringPort(host_of(listen), settings.metrics_port, metrics=metrics, missing=missing)
    _log.info("metrics on http://%s%s", port.address, METRICS_PATHS[0])
    return port


def metrics_text(make: Callable[[], Collect]) -> Callable[[], bytes]:
    """Return what makes the text for Prometheus; it may be called on any thread. `make` is called before the first."""

    @cache
    def made() -> Callable[[], bytes]:
        from tessera.metric_families import MetricsText

        return MetricsText(make())

    return lambda: made()()
