"""The gRPC surface of a router: where it listens, and which methods it answers with what."""

from __future__ import annotations

from collections.abc import Callable

from cpp_ext import _graph, _rpc
from router import reflection_service
from router.explain_service import EXPLAIN
from router.health_service import HealthService
from router.model_service import GET_MODEL_METADATA, GET_MODEL_STATUS, ModelService
from router.profiler_service import MONITOR, PROFILE, TERMINATE, ProfilerService
from router.reload_service import RELOAD_CONFIG, ReloadService
from router.settings import RouterSettings
from router.status_service import GET_STATUS
from tessera.certificates import Certificates

PREDICTION_SERVICE = "/tensorflow.serving.PredictionService/"
METHODS = ("Predict", "Classify", "Regress", "MultiInference")
"""Those that run a model, and are native."""


def make_grpc_server(settings: RouterSettings, certificates: Certificates) -> _rpc.Server:
    """Return a server that is not started yet, on --listen and --unix-socket; only the first may have TLS."""
    return _rpc.Server(
        address=settings.listen,
        plain_addresses=[f"unix:{settings.unix_socket}"] if settings.unix_socket else [],
        pollers=settings.pollers,
        max_message_bytes=settings.max_message_bytes,
        max_concurrent_calls=settings.max_in_flight,
        default_deadline_s=settings.default_deadline_s,
        busy_poll_s=settings.busy_poll_us * 1e-6,
        channel_arguments=settings.channel_arguments(),
        tls_certificate=certificates.certificate,
        tls_private_key=certificates.private_key,
        tls_client_ca=certificates.client_ca,
    )


def register(
    server: _rpc.Server,
    *,
    predictor: _graph.Predictor,
    models: ModelService,
    reload: ReloadService,
    status: Callable[[bytes], bytes],
    explain: Callable[[bytes], bytes],
    health: HealthService,
) -> None:
    """Give `server`, which is not started yet, all methods. `status` and `explain` answer Tessera's own."""
    for method in METHODS:
        server.serve_native(PREDICTION_SERVICE + method, predictor.handler(method))
    server.serve_python(GET_MODEL_STATUS, models.get_model_status)
    server.serve_python(GET_MODEL_METADATA, models.get_model_metadata)
    server.serve_python(RELOAD_CONFIG, reload.handle_reload_config_request, own_thread=True)
    server.serve_python(GET_STATUS, status)
    server.serve_python(EXPLAIN, explain, own_thread=True)  # it waits for the answer
    server.serve_health(health.native)


def register_for_tools(server: _rpc.Server, *, figures: Callable[[], str], profiler: bool) -> ProfilerService | None:
    """Give `server`, which is not started yet, reflection and, with `profiler`, `tensorflow.ProfilerService`.

    Args:
        server: Has the methods of `register`.
        figures: Returns the text that Monitor answers.
        profiler: --profiler.

    Returns:
        The profiler, which is to be closed before the server stops.
    """
    services = reflection_service.SERVICES - (set() if profiler else {reflection_service.PROFILER_SERVICE})
    reflection = reflection_service.ReflectionService(services, _graph.file_descriptor)
    for method in reflection_service.METHODS:
        server.serve_python_stream(method, reflection.answer)
    if not profiler:
        return None
    service = ProfilerService(_graph.Profiler, figures)
    server.serve_python(PROFILE, service.profile, own_thread=True)  # it waits while it records
    server.serve_python(TERMINATE, service.terminate)
    server.serve_python(MONITOR, service.monitor)
    return service
