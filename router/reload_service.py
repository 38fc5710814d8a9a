"""HandleReloadConfigRequest: another configuration of plain models, by RPC."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from protos import model_server_config_pb2, serving_pb2
from router.lifecycle.manager import Lifecycle
from router.tfs.model_configs import server_config
from tessera.errors import InvalidArgumentError

RELOAD_CONFIG = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class ReloadService:
    """Hands configurations to the lifecycle. REQUIRED: on a thread of its own, which waits until one is applied."""

    def __init__(self, lifecycle: Lifecycle, timeout_s: float) -> None:
        """`timeout_s` is how long models that are new may take."""
        self._lifecycle, self._timeout_s = lifecycle, timeout_s

    def handle_reload_config_request(self, request_bytes: bytes) -> bytes:
        """Replace the configuration, all or nothing. Blocks until the models that are new serve.

        Counters that are asked for and not known are left out of the answer, as TensorFlow Serving does.

        Raises:
            InvalidArgumentError: not a ReloadConfigRequest, or without a model_config_list.
            UnavailableError: the server is not started yet, or is being stopped.
            TesseraError: as `Lifecycle.apply`.
        """
        request = serving_pb2.ReloadConfigRequest()
        message = model_server_config_pb2.ModelServerConfig()
        try:
            request.ParseFromString(request_bytes)
            message.ParseFromString(request.config)
        except DecodeError as error:
            raise InvalidArgumentError(f"ReloadConfigRequest: cannot be parsed: {error}") from error
        if message.WhichOneof("config") is None:
            raise InvalidArgumentError("ReloadConfigRequest.config: got none, expected a model_config_list")
        before = dict(self._lifecycle.counters)
        self._lifecycle.apply_from_thread(server_config(message), timeout_s=self._timeout_s)
        response = serving_pb2.ReloadConfigResponse(status=serving_pb2.StatusProto())
        after = dict(self._lifecycle.counters)
        for name in request.metric_names:
            if name in after:
                response.metric.add(name=name, int64_value_increase=after[name] - before.get(name, 0))
        return response.SerializeToString()
