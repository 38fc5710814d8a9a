"""The listener for Prometheus and for probes: HTTP, on a port of its own, on threads of its own."""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Final

from tessera.errors import UnavailableError
from tessera.probes import LIVE_PATH, READY_PATH, live, ready

_log = logging.getLogger("tessera.monitoring_port")

METRICS_PATHS: Final = ("/monitoring/prometheus/metrics", "/metrics")
"""TensorFlow Serving's, and the one that scrapers try by themselves."""

PATHS: Final = (*METRICS_PATHS, LIVE_PATH, READY_PATH)

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON_TYPE: Final = "application/json"
_MAX_CONNECTIONS: Final = 8
_CONNECTION_TIMEOUT_S: Final = 10.0


class MonitoringPort:
    """Tells metrics, liveness and readiness until `stop`."""

    def __init__(
        self, host: str, port: int, *, metrics: Callable[[], bytes], missing: Callable[[], Sequence[str]]
    ) -> None:
        """Bind and serve; port 0 takes a free one.

        Args:
            host: the address to bind; empty means every one of IPv4, `::` also of IPv6.
            port: likewise.
            metrics: returns the text for Prometheus; called on the listener's threads, as the next one.
            missing: returns what keeps the process from being ready, one short text each.

        Raises:
            UnavailableError: the address cannot be bound; names it.
        """
        try:
            self._server = _Listener(host, port, metrics, missing)
        except OSError as error:
            raise UnavailableError(f"--metrics-port: cannot listen on {_join(host, port)}: {error.strerror}") from error
        self.address = _join(host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="tessera.monitoring", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more and end the thread; blocks for half a second at most. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Listener(socketserver.ThreadingTCPServer):
    """Bounded: further connections are closed, so that no client can use up threads."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a client that holds its connection does not hold the end of the process

    def __init__(
        self, host: str, port: int, metrics: Callable[[], bytes], missing: Callable[[], Sequence[str]]
    ) -> None:
        self.metrics, self.missing = metrics, missing
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is every address, as for gRPC
        super().server_bind()

    def verify_request(self, request: object, client_address: object) -> bool:
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log bugs; clients that went away are no news."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("could not answer %s", client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: _Listener
    timeout = _CONNECTION_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in METRICS_PATHS:
            self._answer(HTTPStatus.OK, self.server.metrics(), _METRICS_TYPE)
        elif path == LIVE_PATH:
            self._answer(*live(), _JSON_TYPE)
        elif path == READY_PATH:
            self._answer(*ready(self.server.missing()), _JSON_TYPE)
        else:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"expected one of {', '.join(PATHS)}")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Tell callers no versions."""
        return "tessera"

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
