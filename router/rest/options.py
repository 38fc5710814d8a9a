"""What the REST port is told when it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RestOptions:
    """Limits and switches of the REST port.

    Attributes:
        timeout_s: Longest time that a predict, classify or regress may take after its body has come; then 504.
        threads: Native threads that decode and run requests; 0 means one per core. Requests of models that answer
            within about 200 µs run on the event loop's thread instead.
        max_in_flight: More predict, classify and regress requests at once are refused with 429.
        max_body_bytes: Largest body, after decompression; a larger one is refused with 400.
        max_buffered_bytes: Bodies that may be held at once, together; more are refused with 429.
        max_connections: Further connections are closed at once.
        max_header_bytes: Longer request heads are refused with 431.
        stall_timeout_s: A client that moves less than 64 KiB in this time, while it is its turn, is cut off.
        keep_alive_s: A connection without a request for this long is closed.
        cors: Answer web pages of other origins, with TensorFlow Serving's headers.
        gzip_responses: Compress answers above 1 KiB for clients that accept it; TensorFlow Serving does not.
        metrics_path: Where `RestServices.metrics` is served; empty means nowhere.
    """

    timeout_s: float = 30.0
    threads: int = 0
    max_in_flight: int = 4096
    max_body_bytes: int = 100 << 20
    max_buffered_bytes: int = 1 << 30
    max_connections: int = 4096
    max_header_bytes: int = 64 << 10
    stall_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    cors: bool = False
    gzip_responses: bool = False
    metrics_path: str = ""


@dataclass(frozen=True, kw_only=True)
class RestServices:
    """What the REST port asks the rest of the router, on helper threads.

    Attributes:
        get_model_status: Serialized GetModelStatusRequest → GetModelStatusResponse; raises `TesseraError`.
        get_model_metadata: Likewise GetModelMetadata.
        metrics: The text for Prometheus; None serves none, whatever `RestOptions.metrics_path` says.
        missing: What keeps the router from being ready, one short text each, such as "model half_plus_two: version 2
            is loading"; empty when it is ready.
    """

    get_model_status: Callable[[bytes], bytes]
    get_model_metadata: Callable[[bytes], bytes]
    metrics: Callable[[], bytes] | None = None
    missing: Callable[[], Sequence[str]] = tuple
