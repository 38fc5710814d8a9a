"""The REST port as an ASGI application. Per request it routes and passes on; JSON and models are native."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from router.rest.bodies import BodyReader, Receive
from router.rest.dispatcher import Dispatcher, Headers
from router.rest.model_json import metadata_json, status_json
from router.rest.openapi import openapi_json
from router.rest.options import RestOptions, RestServices
from router.rest.responses import JSON, TEXT, Response, error_body, failure, of_code, of_error
from router.rest.routes import InferRoute, ReadRoute, is_api, parse
from tessera.errors import Code, TesseraError
from tessera.probes import LIVE_PATH, READY_PATH, live, ready

_log = logging.getLogger("router.rest")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = Mapping[str, Any]

_MAX_CACHED_ROUTES: Final = 1024
_MIN_GZIP_BYTES: Final = 1024
_GZIP_LEVEL: Final = 1
_CORS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


class RestApp:
    """Answers TensorFlow Serving's routes, the metrics path, `/healthz`, `/readyz` and `/openapi.json`.

    Used on the event loop on which the dispatcher is attached.
    """

    def __init__(self, dispatcher: Dispatcher, services: RestServices, options: RestOptions) -> None:
        self._dispatcher = dispatcher
        self._services = services
        self._options = options
        self._bodies = BodyReader(options.max_body_bytes, options.max_buffered_bytes)
        self._routes: dict[bytes, InferRoute] = {}  # of paths that were matched before
        self._metrics_path = options.metrics_path if services.metrics is not None else ""
        self._openapi = openapi_json(self._metrics_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; ASGI 3, type "http" only."""
        assert scope["type"] == "http", scope["type"]
        try:
            response = await self._respond(scope, receive)
        except TesseraError as error:
            response = of_error(error)
        except Exception:  # noqa: BLE001  # a bug must not end the connection without an answer
            _log.exception("bug: %s %s", scope["method"], scope["path"])
            response = failure(Code.INTERNAL, "unexpected error; the router's log has more", close=True)
        if self._options.gzip_responses:
            response = await _compressed(response, scope["headers"])
        await _send(response, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        verb: str = scope["method"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        if verb == "POST":
            route = self._routes.get(raw_path)
            if route is not None:
                return self._with_cors(await self._infer(route, scope["headers"], receive))
        path = raw_path.decode("latin-1")
        if not is_api(path):
            return await self._other(verb, path)
        if verb == "OPTIONS":
            return self._with_cors(_preflight(scope["headers"]))
        try:
            parsed = parse(verb, path)
            if isinstance(parsed, ReadRoute):
                return self._with_cors(await asyncio.to_thread(self._read, parsed))
        except TesseraError as error:
            return self._with_cors(of_error(error))
        if len(self._routes) >= _MAX_CACHED_ROUTES:
            self._routes.clear()
        self._routes[raw_path] = parsed
        return self._with_cors(await self._infer(parsed, scope["headers"], receive))

    async def _infer(self, route: InferRoute, headers: Headers, receive: Receive) -> Response:
        gzipped = False
        for name, value in headers:
            if name == b"content-encoding" and b"gzip" in value.lower():
                gzipped = True
        try:
            body = await self._bodies.read(receive, gzip=gzipped)
        except TesseraError as error:
            # What is left of the body is not read.
            return failure(error.code, error.message, close=True)
        try:
            code, answer = await self._dispatcher.run(route, body, headers, receive)
        finally:
            self._bodies.release(len(body))
        return of_code(code, answer)

    def _read(self, route: ReadRoute) -> Response:
        if route.metadata:
            return Response(200, metadata_json(route, self._services.get_model_metadata), JSON)
        return Response(200, status_json(route, self._services.get_model_status), JSON)

    def _with_cors(self, response: Response) -> Response:
        if not self._options.cors:
            return response
        return Response(response.status, response.body, response.content_type, (*response.headers, *_CORS))

    async def _other(self, verb: str, path: str) -> Response:
        """Answer what TensorFlow Serving's API does not have."""
        folder = self._metrics_path.rpartition("/")[0]
        if path == self._metrics_path and self._services.metrics is not None:
            return Response(200, await asyncio.to_thread(self._services.metrics), TEXT)
        if folder and path.startswith(f"{folder}/"):
            text = f"Unexpected path: {path}. Should be {self._metrics_path}"
            return Response(400, text.encode(), TEXT)
        if path not in (LIVE_PATH, READY_PATH, "/openapi.json"):
            return failure(Code.NOT_FOUND, f"Not found: {path}")
        if verb != "GET":
            return Response(405, error_body(f"{path}: got {verb}, expected GET"), JSON, _ALLOW_GET)
        if path == "/openapi.json":
            return Response(200, self._openapi, JSON)
        if path == LIVE_PATH:
            return Response(*live(), JSON)
        return Response(*ready(await asyncio.to_thread(self._services.missing)), JSON)


_ALLOW_GET: Final = ((b"allow", b"GET"),)


def _preflight(headers: Headers) -> Response:
    for name, value in headers:
        if name == b"origin" and (b"http://" in value or b"https://" in value):
            return Response(200)
    return Response(400)


async def _compressed(response: Response, headers: Headers) -> Response:
    if len(response.body) < _MIN_GZIP_BYTES:
        return response
    if not any(name == b"accept-encoding" and b"gzip" in value for name, value in headers):
        return response
    body = await asyncio.to_thread(gzip.compress, response.body, _GZIP_LEVEL, mtime=0)
    added = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
    return Response(response.status, body, response.content_type, (*response.headers, *added))


async def _send(response: Response, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(response.body)), *response.headers]
    if response.content_type:
        headers.append((b"content-type", response.content_type))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
