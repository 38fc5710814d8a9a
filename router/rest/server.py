"""The REST port: uvicorn on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading

import uvicorn
import uvloop

from cpp_ext import _graph
from router.rest.app import RestApp
from router.rest.dispatcher import Dispatcher
from router.rest.options import RestOptions, RestServices
from router.rest.protocol import BoundedProtocol, bounded
from tessera.errors import UnavailableError

_log = logging.getLogger("router.rest")

_BACKLOG = 1024
_SWEEP_S = 5.0
_START_POLL_S = 0.002
_END_GRACE_S = 5.0


class RestServer:
    """Serves from `start` to `drain` or `stop`; not to be started again. Methods block, and belong to one thread."""

    def __init__(
        self,
        host: str,
        port: int,
        predictor: _graph.Predictor,
        services: RestServices,
        options: RestOptions | None = None,
    ) -> None:
        """Nothing is bound yet. `port` 0 takes a free one; `host` "::" is every address, of IPv4 too.

        Raises:
            InvalidArgumentError: a limit in `options` is not positive.
        """
        self._host, self._port = host, port
        self._options = options or RestOptions()
        cores = len(os.sched_getaffinity(0))
        self.engine = _graph.Rest(
            predictor, threads=self._options.threads or cores, max_in_flight=self._options.max_in_flight
        )
        self._dispatcher = Dispatcher(self.engine, self._options.timeout_s)
        self._app = RestApp(self._dispatcher, services, self._options)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self.port = 0

    @property
    def address(self) -> str:
        """Return host:port, once started."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    def start(self) -> int:
        """Bind and serve; return the port.

        Raises:
            UnavailableError: the address cannot be bound; names it.
        """
        listener = self._bind()
        options = self._options
        config = uvicorn.Config(
            self._app,
            http=bounded(options.max_connections, options.max_header_bytes),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # else clients could fill the log
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(options.keep_alive_s),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener), name="router.rest", daemon=True
        )
        self._thread.start()
        self._started.wait(_END_GRACE_S)
        return self.port

    def drain(self, timeout_s: float) -> bool:
        """Take no more connections, let requests in progress end, stop; return whether all ended in time."""
        if self._server is None or self._thread is None:
            return True
        # uvicorn asks for whole seconds, but only waits that long.
        self._server.config.timeout_graceful_shutdown = timeout_s  # type: ignore[assignment]
        self._server.should_exit = True
        self._thread.join(timeout_s + _END_GRACE_S)
        complete = not self._thread.is_alive() and self.engine.in_flight == 0
        self.engine.stop()
        return complete

    def stop(self) -> None:
        """Cut off whatever is in progress. May be called twice, and after `drain`."""
        self.drain(0.0)

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise UnavailableError(f"REST: cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        return listener

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(server, listener))
        except Exception:  # noqa: BLE001  # told in the log; the thread has nobody else to tell
            _log.exception("bug: the REST port has ended")
        finally:
            listener.close()
            self._started.set()

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._dispatcher.attach()
        sweeping = asyncio.create_task(self._sweep(server))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not (server.started or serving.done()):  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(_START_POLL_S)
        self._started.set()
        try:
            await serving
        finally:
            sweeping.cancel()
            self._dispatcher.detach()

    async def _sweep(self, server: uvicorn.Server) -> None:
        """Cut off clients that stall."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            for connection in list(server.server_state.connections):
                if isinstance(connection, BoundedProtocol) and connection.is_stalled(
                    _SWEEP_S, self._options.stall_timeout_s
                ):
                    connection.transport.abort()
