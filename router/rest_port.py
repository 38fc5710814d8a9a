"""Makes a router's REST port from its settings."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from cpp_ext import _graph
from router.model_service import ModelService
from router.rest.options import RestOptions, RestServices
from router.rest.server import RestServer
from router.settings import RouterSettings


def make_rest_server(
    settings: RouterSettings,
    predictor: _graph.Predictor,
    models: ModelService,
    *,
    metrics: Callable[[], bytes],
    missing: Callable[[], Sequence[str]],
) -> RestServer | None:
    """Return the port, not started; None where the settings say that there is none.

    Args:
        settings: of the router.
        predictor: what answers predict, classify and regress.
        models: what answers status and metadata.
        metrics: the text for Prometheus; called on a helper thread, as the next one.
        missing: what keeps the router from being ready.

    Raises:
        InvalidArgumentError: a limit is wrong.
    """
    if not settings.rest_listen:
        return None
    host, port = settings.rest_address()
    services = RestServices(
        get_model_status=models.get_model_status,
        get_model_metadata=models.get_model_metadata,
        metrics=metrics,
        missing=missing,
    )
    options = RestOptions(
        timeout_s=settings.rest_timeout_s,
        threads=settings.rest_threads,
        max_in_flight=settings.max_in_flight,
        max_body_bytes=settings.rest_max_body_bytes,
        cors=settings.rest_cors,
        gzip_responses=settings.rest_gzip,
        metrics_path=settings.metrics_path,
    )
    return RestServer(_every_address(host), port, predictor, services, options)


def _every_address(host: str) -> str:
    """Return `host`, or IPv4's every address where IPv6's is meant and this machine has none."""
    if host != "::":
        return host
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return host
