"""Answers of the REST port: HTTP codes and error bodies as TensorFlow Serving's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tessera.errors import Code, TesseraError

JSON: Final = b"application/json"
TEXT: Final = b"text/plain"

HTTP_OF_CODE: Final = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; without a content type it has no body."""

    status: int
    body: bytes = b""
    content_type: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def of_code(code: int, body: bytes) -> Response:
    """Return the answer for a status code whose JSON body is made already."""
    return Response(HTTP_OF_CODE.get(Code(code), 500), body, JSON)


def failure(code: Code, message: str, *, close: bool = False) -> Response:
    """Return `{"error": message}`; `close` ends the connection after it."""
    headers = ((b"connection", b"close"),) if close else ()
    return Response(HTTP_OF_CODE[code], error_body(message), JSON, headers)


def of_error(error: TesseraError) -> Response:
    """Return what a client sees of an error."""
    return failure(error.code, error.message)


def error_body(message: str) -> bytes:
    """Return TensorFlow Serving's form of an error, which the native core prints likewise."""
    text = json.dumps({"error": message}, indent=4, ensure_ascii=False)
    return text.encode("utf-8", errors="replace")
