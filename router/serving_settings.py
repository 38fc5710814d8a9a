"""The router's settings of what is served and how clients reach it, beside gRPC on --listen."""

from __future__ import annotations

from dataclasses import dataclass

from cpp_ext.channel_arguments import parse_channel_arguments
from tessera.errors import SettingsError
from tessera.process_settings import ProcessSettings
from tessera.settings import ByteSize, setting


@dataclass(frozen=True, kw_only=True)
class ServingSettings(ProcessSettings):
    """REST, the lifecycle of plain models, and platforms."""

    unix_socket: str = setting("path of a Unix socket on which gRPC is served too; empty means none", "")
    grpc_channel_arguments: str = setting(
        "arguments of the gRPC server, name=value separated by commas; a whole number is given as one", ""
    )
    rest_listen: str = setting("where REST is served: host:port; empty means nowhere", "")
    rest_timeout_s: float = setting("longest time a REST request may take, seconds", 30.0, minimum=0.001)
    rest_cors: bool = setting("answer REST requests of web pages of other origins (CORS headers)", False)
    rest_gzip: bool = setting("compress REST answers above 1 KiB for clients that accept gzip", False)
    rest_threads: int = setting("threads that answer REST requests; 0 means one per core", 0, minimum=0)
    rest_max_body_bytes: ByteSize = setting(
        "largest body of a REST request, after decompression", ByteSize(100 << 20), minimum=1024
    )
    metrics_path: str = setting(
        "path of the REST port where Prometheus reads; empty means none there", "/monitoring/prometheus/metrics"
    )
    model: tuple[str, ...] = setting(
        "serve a plain model: DIR holds its numbered versions, of which the largest is served, as more come; may be "
        "repeated",
        (),
        metavar="NAME=DIR",
    )
    model_config_file: str = setting(
        "TensorFlow Serving's model_config_file (text proto): plain models with all their settings", ""
    )
    model_config_poll_s: float = setting(
        "time between two looks at --model-config-file, seconds; 0 means it is read once; a wrong file changes nothing",
        0.0,
        minimum=0.0,
    )
    model_poll_s: float = setting(
        "time between two looks for new versions of plain models, seconds; 0 means once at the start, below 0 never",
        1.0,
    )
    load_threads: int = setting("threads that load plain models after the start; 0 means one", 0, minimum=0)
    load_retries: int = setting("how often loading a version is tried again", 5, minimum=0)
    load_retry_interval_s: float = setting("time between two tries, seconds", 60.0, minimum=0.0)
    start_timeout_s: float = setting(
        "how long gRPC waits for the models of the start, seconds; models that have no version on disk are not waited "
        "for; the router is not ready before all serve",
        600.0,
        minimum=0.1,
    )
    reload_timeout_s: float = setting(
        "how long HandleReloadConfigRequest waits for new models, seconds; after it nothing has changed",
        600.0,
        minimum=0.1,
    )
    memory_limit_bytes: ByteSize = setting(
        "memory that plain models, and the roots of the cluster's models, may have together, at the peak of loading; a "
        "version that would go beyond it is refused; 0 means no limit",
        ByteSize(0),
    )
    labels_for_unavailable: bool = setting(
        "let a label that is new, or stays where it is, name a version that is not available yet", False
    )
    saved_model_tags: str = setting("tags of the meta graph that is loaded, separated by commas", "serve")
    warmup: bool = setting(
        "replay assets.extra/tf_serving_warmup_requests of a version before it serves; one that fails fails the load",
        True,
    )
    warmup_iterations: int = setting("how often each of these requests is replayed; 0 means once", 0, minimum=0)
    request_batching: bool = setting(
        "join waiting requests of models whose graphs mark no region, and run the model once for all of them", False
    )
    per_model_batching_parameters: bool = setting(
        "with --request-batching: batching_params.pbtxt in a version's directory says how, no file means not at all",
        False,
    )
    prefer_tflite: bool = setting("serve a version's model.tflite where it has one", False)
    tflite_pools: int = setting("pools of TFLite interpreters of a version; 0 means one per core", 0, minimum=0)
    tflite_interpreters_per_pool: int = setting("interpreters in each pool", 1, minimum=1)
    method_name_check: bool = setting(
        "Classify and Regress want signatures whose method_name is tensorflow/serving/classify or …/regress", False
    )
    profiler: bool = setting("serve tensorflow.ProfilerService", True)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: names the setting, what was given and what was expected.
        """
        super().__post_init__()
        if self.metrics_path and not self.metrics_path.startswith("/"):
            raise SettingsError(f"--metrics-path: got {self.metrics_path!r}, expected it to begin with /")
        self.check_needs("per_model_batching_parameters", "request_batching")
        self.channel_arguments()
        self.tags()
        if self.rest_listen:
            self.rest_address()

    def rest_address(self) -> tuple[str, int]:
        """Return host and port of --rest-listen, which is not empty.

        Raises:
            SettingsError: it is not host:port.
        """
        host, separator, port = self.rest_listen.rpartition(":")
        if not (separator and port.isdecimal() and int(port) < 1 << 16):
            raise SettingsError(f"--rest-listen: got {self.rest_listen!r}, expected host:port")
        return host.strip("[]") or "::", int(port)

    def tags(self) -> tuple[str, ...]:
        """Return the tags of the meta graph that is loaded.

        Raises:
            SettingsError: there is none.
        """
        tags = tuple(tag for tag in self.saved_model_tags.split(",") if tag)
        if not tags:
            raise SettingsError(f"--saved-model-tags: got {self.saved_model_tags!r}, expected at least one tag")
        return tags

    def channel_arguments(self) -> dict[str, int | str]:
        """Return the arguments of the gRPC server by name.

        Raises:
            SettingsError: an entry has no name or no value, or a text where gRPC needs an integer.
        """
        return parse_channel_arguments(self.grpc_channel_arguments, "--grpc-channel-arguments")
