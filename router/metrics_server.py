"""The listener that Prometheus scrapes: HTTP, on a port of its own, on threads of its own."""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from tessera.errors import UnavailableError

_log = logging.getLogger("router.metrics_server")

PATHS = ("/monitoring/prometheus/metrics", "/metrics")
"""TensorFlow Serving's, and the one that scrapers try by themselves."""

_MAX_CONNECTIONS = 8
_CONNECTION_TIMEOUT_S = 10.0


class MetricsServer:
    """Serves one text until `stop`."""

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        """Bind and serve what `text` returns, on the listener's threads; port 0 takes a free one.

        Raises:
            UnavailableError: the address cannot be bound; names it.
        """
        try:
            self._server = _Listener(host, port, text)
        except OSError as error:
            raise UnavailableError(f"--metrics-port: cannot listen on {_join(host, port)}: {error.strerror}") from error
        self.address = _join(host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="router.metrics", daemon=True)
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

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        self.text = text
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
            _log.exception("metrics could not be told to %s", client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: _Listener
    timeout = _CONNECTION_TIMEOUT_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in PATHS:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"expected one of {', '.join(PATHS)}")
            return
        body = self.server.text()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Tell callers no versions."""
        return "tessera"

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
