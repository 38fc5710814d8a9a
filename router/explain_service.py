"""Explain: answers one Predict as a client's, and says which servers it asked for what. Rare, answered in Python.

The request runs on the graphs that serve, through a predictor and over routes of its own: those keep what lookups do,
and nothing is added to what other requests run through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from protos import router_pb2, serving_pb2
from tessera.errors import Code, InvalidArgumentError, TesseraError

if TYPE_CHECKING:  # only: the `tessera` command takes the method's name from here and has no use for the rest
    from cpp_ext import _graph
    from router.traced import Traced

EXPLAIN = "/tessera.router.v1.RouterService/Explain"
MAX_TIMEOUT_S = 600.0


class ExplainService:
    """Explains one request after the other."""

    def __init__(self, trace: Callable[[str], Traced], make_predictor: Callable[[], _graph.Predictor]) -> None:
        """`trace` returns what serves a model, or raises NotFoundError; both are called on the method's thread."""
        self._trace, self._make_predictor = trace, make_predictor

    def explain(self, request_bytes: bytes) -> bytes:
        """Return a serialized ExplainResponse. Blocks until the request is answered.

        Raises:
            InvalidArgumentError: not an ExplainRequest, or a wrong value in it.
            NotFoundError: no such model serves.
        """
        try:
            request = router_pb2.ExplainRequest.FromString(request_bytes)
            model = serving_pb2.PredictRequest.FromString(request.predict_request).model_spec.name
        except DecodeError as error:
            raise InvalidArgumentError(f"ExplainRequest: cannot be parsed: {error}") from error
        if not 0 < request.timeout_s <= MAX_TIMEOUT_S:
            raise InvalidArgumentError(
                f"timeout_s: got {request.timeout_s:g}, expected above 0, at most {MAX_TIMEOUT_S:g}"
            )
        traced = self._trace(model)
        predictor = self._make_predictor()
        predictor.publish({model: traced.versions}, traffic=traced.traffic, labels=traced.labels)
        response = router_pb2.ExplainResponse(
            model=model, epoch=traced.epoch, request_bytes=len(request.predict_request)
        )
        started_ns = time.monotonic_ns()
        try:
            answer = predictor.call("Predict", request.predict_request, timeout_s=request.timeout_s)
            response.took_micros = (time.monotonic_ns() - started_ns) / 1e3
            response.response_bytes = len(answer)
            response.version = serving_pb2.PredictResponse.FromString(answer).model_spec.version.value
        except TesseraError as error:
            response.took_micros = (time.monotonic_ns() - started_ns) / 1e3
            response.code, response.message = int(error.code), error.message
        for version, route in traced.routes.items():
            _add_lookups(response, route.trace(), started_ns)
            if response.lookups and not response.version and response.code != Code.OK:
                response.version = version  # of the one that was asked
        response.package_digest = traced.digests.get(response.version, "")
        return response.SerializeToString()


def _add_lookups(response: router_pb2.ExplainResponse, trace: Mapping[str, Any], started_ns: int) -> None:
    response.dropped += trace["dropped"]
    for lookup in trace["lookups"]:
        added = response.lookups.add(rows=lookup["rows"], repeats=lookup["repeats"], **_outcome(lookup, started_ns))
        for one in lookup["sub_requests"]:
            added.sub_requests.add(
                server_id=one["server_id"],
                address=one["address"],
                cause=one["cause"],
                table_rows=one["table_rows"],
                ids_bytes=one["ids_bytes"],
                rows_bytes=one["rows_bytes"],
                **_outcome(one, started_ns),
            )


def _outcome(traced: Mapping[str, Any], started_ns: int) -> dict[str, Any]:
    return {
        "started_micros": (traced["started_ns"] - started_ns) / 1e3,
        "took_micros": max(0, traced["ended_ns"] - traced["started_ns"]) / 1e3,
        "code": traced["code"],
        "message": traced["message"],
    }
