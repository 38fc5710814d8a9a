"""Which services the gRPC health service knows, and what it says of them."""

from __future__ import annotations

from cpp_ext import _rpc

SERVICES = (
    "",  # the whole server
    "ModelService",  # TensorFlow Serving's names, which have no package
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)
_SERVING, _NOT_SERVING = 1, 2


class HealthService:
    """The health of a router: NOT_SERVING until `set_serving`, and for good after `drain`.

    All services have one status: readiness is a property of the router. May be called on any thread.
    """

    def __init__(self) -> None:
        self.native = _rpc.Health()
        """What `_rpc.Server.serve_health` takes; Check and Watch never wait for Python."""
        self.set_serving(False)

    def set_serving(self, is_serving: bool) -> None:
        """Tell those who ask, and those who watch if this changes anything."""
        for service in SERVICES:
            self.native.set(service, _SERVING if is_serving else _NOT_SERVING)

    def drain(self) -> None:
        """Turn to NOT_SERVING for good, before the server drains: load balancers see it and go elsewhere."""
        self.native.drain()
