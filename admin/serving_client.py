"""A small client of the serving API, for the verbs of `tessera`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import grpc

from protos import serving_pb2
from tessera.errors import DeadlineExceededError, TesseraError, error_class

PREDICTION_SERVICE = "/tensorflow.serving.PredictionService/"
_GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_AVAILABLE = 30
_END = 50


def open_channel(router: str) -> grpc.Channel:
    """Return a channel to `router` (host:port) for messages up to 1 GiB; a context manager."""
    limit = 1 << 30
    return grpc.insecure_channel(
        router, options=[("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
    )


def call(channel: grpc.Channel, method: str, request: bytes, timeout_s: float) -> bytes:
    """Make one unary call with serialized messages.

    Raises:
        TesseraError: of the class of the call's status code, with the code's name and the server's text.
    """
    try:
        method_stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return method_stub(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise _converted(error) from None


def _converted(error: grpc.RpcError) -> TesseraError:
    code = error.code()
    return error_class(code.value[0])(f"{code.name}: {error.details()}")


def wait_until_available(router: str, models: Mapping[str, Sequence[int]], timeout_s: float) -> None:
    """Wait until `router` serves every version of `models`.

    Raises:
        TesseraError: a version failed to load; with the router's text.
        DeadlineExceededError: `timeout_s` passed; names what is missing.
    """
    deadline = time.monotonic() + timeout_s
    missing = {(model, version) for model, versions in models.items() for version in versions}
    with open_channel(router) as channel:
        while missing:
            missing -= {pair for pair in missing if _is_available(channel, *pair)}
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"{model} version {version}" for model, version in sorted(missing))
                raise DeadlineExceededError(f"router {router}: not available within {timeout_s:.0f} s: {names}")
            if missing:
                time.sleep(0.05)


def _is_available(channel: grpc.Channel, model: str, version: int) -> bool:
    request = serving_pb2.GetModelStatusRequest(model_spec=serving_pb2.ModelSpec(name=model))
    request.model_spec.version.value = version
    try:
        answer = call(channel, _GET_MODEL_STATUS, request.SerializeToString(), timeout_s=5.0)
    except TesseraError:  # not known yet, or not listening yet
        return False
    status = serving_pb2.GetModelStatusResponse.FromString(answer).model_version_status[0]
    if status.state == _END and status.status.error_code:
        raise error_class(status.status.error_code)(f"{model} version {version}: {status.status.error_message}")
    return bool(status.state == _AVAILABLE)
