"""A REST port in this process with two versions of y = x / 2 + b. Imports TensorFlow."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cpp_ext import _graph
from router.catalog import Catalog, VersionState, VersionStatus
from router.model_service import ModelService
from router.rest.options import RestOptions, RestServices
from router.rest.server import RestServer
from support.half_plus import half_plus

MODEL = "half"
TIMEOUT_S = 20.0


def load(folder: Path) -> dict[int, _graph.Graph]:
    """Return versions 1 (b = 2) and 2 (b = 3), made in `folder`."""
    paths = {version: half_plus(folder / str(version), version + 1.0) for version in (1, 2)}
    return {version: _graph.Graph.load(str(path)) for version, path in paths.items()}


@contextlib.contextmanager
def rest_port(graphs: Mapping[int, _graph.Graph], **options: Any) -> Iterator[RestServer]:
    """Serve them; version 1 has the label "stable"."""
    labels: dict[int, list[str]] = {1: ["stable"]}
    predictor = _graph.Predictor()
    versions = [_graph.Version(version=n, graph=graph, labels=labels.get(n, [])) for n, graph in graphs.items()]
    predictor.publish({MODEL: versions})
    statuses = {n: VersionStatus(VersionState.AVAILABLE, signature_defs=g.signature_defs) for n, g in graphs.items()}
    catalog = Catalog({MODEL: statuses}, {MODEL: {"stable": 1}})
    service = ModelService(lambda: catalog)
    services = RestServices(
        get_model_status=service.get_model_status,
        get_model_metadata=service.get_model_metadata,
        metrics=lambda: b"up 1\n",
    )
    server = RestServer("127.0.0.1", 0, predictor, services, RestOptions(**options))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(
    server: RestServer, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one request over a connection of its own; `body` is bytes, or is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request(verb, path, data, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
