"""`tensorflow_model_server`'s command line and files → the settings of a router and what else it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batching.parameters_file import parse_parameters
from batching.policy_file import PolicyFile
from router.batch_policies import PolicySource
from router.configured import configured_models
from router.settings import RouterSettings
from router.tfs import config_files
from router.tfs.flag_table import TABLE
from router.tfs.flags import ParsedFlags, Value
from router.tfs.own_flags import own_settings
from tessera.certificates import Certificates, CertificateSource
from tessera.errors import InvalidArgumentError, SettingsError

_HOST = "0.0.0.0"
_MAX_PORT = 65535
_MICROS = 1e-6


@dataclass(frozen=True)
class Launch:
    """A router as its command line wants it.

    Attributes:
        certificates: reads those of gRPC; None: no TLS, or files that the settings name.
        policies: how batches are made, where the settings name no file for it.
    """

    settings: RouterSettings
    certificates: CertificateSource | None = None
    policies: PolicySource | None = None


class _Given:
    """The values of all flags, given or by default, with their types."""

    def __init__(self, parsed: ParsedFlags) -> None:
        self._values: dict[str, Value] = {flag.name: flag.default for flag in TABLE} | dict(parsed.given)

    def text(self, name: str) -> str:
        value = self._values[name]
        return value if isinstance(value, str) else ""

    def flag(self, name: str) -> bool:
        return self._values[name] is True

    def number(self, name: str, least: int | None = None, most: int | None = None) -> int:
        """Return the value; 0 for auto.

        Raises:
            InvalidArgumentError: it is not within its limits; names the flag.
        """
        value = self._values[name]
        number = value if isinstance(value, int) else 0
        if (least is not None and number < least) or (most is not None and number > most):
            limits = f"{least} to {most}" if most is not None else f"{least} or more"
            raise InvalidArgumentError(f"--{name}: got {number}, expected {limits}")
        return number


def translate(parsed: ParsedFlags, warn: Callable[[str], None]) -> Launch:
    """Return what to run; reads the files that the flags name.

    `warn` is told of what is set twice, and, whenever a file of batching parameters is read, what of it means nothing.

    Raises:
        TesseraError: a flag or file is wrong; names it.
    """
    given = _Given(parsed)
    own = own_settings(parsed.given)
    values: dict[str, Any] = {**_addresses(given, warn), **_models(given), **_execution(given)}
    policies = _batching(given, values, warn)
    values["metrics_path"] = (
        config_files.read_metrics_path(given.text("monitoring_config_file"))
        if given.text("monitoring_config_file")
        else ""
    )
    if not (values["model"] or values["model_config_file"] or own.get("etcd") or own.get("saved_model")):
        raise InvalidArgumentError(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    settings = _settings(values | own)
    configured_models(settings)  # what is wrong is told now, and not once TensorFlow's libraries are there
    return Launch(settings, _certificates(given), policies)


def _settings(values: dict[str, Any]) -> RouterSettings:
    try:
        return RouterSettings(**values)
    except SettingsError as error:  # it names the settings as `python -m router` does
        raise InvalidArgumentError(error.message) from None


def _addresses(given: _Given, warn: Callable[[str], None]) -> dict[str, Any]:
    port = given.number("port", 0, _MAX_PORT)
    socket = given.text("grpc_socket_path")
    rest_port = given.number("rest_api_port", 0, _MAX_PORT)
    if not port and not socket:
        raise InvalidArgumentError(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    if rest_port and rest_port == port:
        warn(f"--rest_api_port: is {port} as --port is, expected another port; REST is not served")
        rest_port = 0
    return {
        "listen": f"{_HOST}:{port}" if port else f"unix:{socket}",
        "unix_socket": socket if port else "",
        "rest_listen": f"[::]:{rest_port}" if rest_port else "",
        "rest_timeout_s": given.number("rest_api_timeout_in_ms", 1) / 1000,
        "rest_threads": given.number("rest_api_num_threads", 0),
        "rest_cors": given.flag("rest_api_enable_cors_support"),
        "grpc_channel_arguments": given.text("grpc_channel_arguments"),
        "profiler": given.flag("enable_profiler"),
    }


def _models(given: _Given) -> dict[str, Any]:
    config_file, base_path = given.text("model_config_file"), given.text("model_base_path")
    return {
        "model_config_file": config_file,
        "model": (f"{given.text('model_name')}={base_path}",) if base_path and not config_file else (),
        "model_config_poll_s": float(given.number("model_config_file_poll_wait_seconds", 0)),
        "model_poll_s": float(given.number("file_system_poll_wait_seconds")),
        "load_threads": given.number("num_load_threads", 0),
        "load_retries": given.number("max_num_load_retries", 0),
        "load_retry_interval_s": given.number("load_retry_interval_micros", 0) * _MICROS,
        "labels_for_unavailable": given.flag("allow_version_labels_for_unavailable_models"),
        "prefer_tflite": given.flag("prefer_tflite_model"),
        "tflite_pools": given.number("num_tflite_pools", 0),
        "tflite_interpreters_per_pool": given.number("num_tflite_interpreters_per_pool", 1),
        "method_name_check": given.flag("enable_signature_method_name_check"),
        "tensor_content": given.flag("enable_serialization_as_tensor_content"),
    }


def _execution(given: _Given) -> dict[str, Any]:
    """Return what a platform config replaces: threads, tags, warm-up."""
    if path := given.text("platform_config_file"):
        config = config_files.read_platform_config(path)
        return {
            "intra_op_threads": max(0, config.session_config.intra_op_parallelism_threads),
            "saved_model_tags": ",".join(config.saved_model_tags) or "serve",
            "warmup": config.enable_model_warmup,
            "warmup_iterations": max(0, config.model_warmup_options.num_request_iterations.value),
        }
    threads = given.number("tensorflow_intra_op_parallelism", 0) or given.number("tensorflow_session_parallelism", 0)
    if not threads and (path := given.text("tensorflow_session_config_file")):
        threads = config_files.read_intra_op_threads(path)
    return {
        "intra_op_threads": threads,
        "saved_model_tags": given.text("saved_model_tags"),
        "warmup": given.flag("enable_model_warmup"),
        "warmup_iterations": given.number("num_request_iterations_for_warmup", 0),
    }


def _batching(given: _Given, values: dict[str, Any], warn: Callable[[str], None]) -> PolicySource | None:
    """Add to `values` how requests are batched; return the policy, if it is in a platform config."""
    if path := given.text("platform_config_file"):
        values["request_batching"] = config_files.read_platform_config(path).HasField("batching_parameters")

        def parse(text: str, place: str) -> PolicyFile:
            config = config_files.parse_platform_config(text, place)
            batching = config_files.batching_text(config.batching_parameters)
            policy, warnings = parse_parameters(batching, place, tensorflow_defaults=True)
            for warning in warnings:
                warn(warning)
            return PolicyFile(policy)

        return PolicySource("--platform_config_file", path, parse) if values["request_batching"] else None
    file = given.text("batching_parameters_file")
    if file and not given.flag("enable_batching"):
        raise InvalidArgumentError(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    if given.flag("enable_per_model_batching_parameters") and not given.flag("enable_batching"):
        raise InvalidArgumentError("--enable_per_model_batching_parameters: needs --enable_batching")
    values["request_batching"] = given.flag("enable_batching")
    values["batching_parameters_file"] = file
    values["per_model_batching_parameters"] = given.flag("enable_per_model_batching_parameters")
    return None


def _certificates(given: _Given) -> CertificateSource | None:
    path = given.text("ssl_config_file")
    if given.flag("use_alts_credentials"):
        raise InvalidArgumentError(
            "--use_alts_credentials: ALTS is not supported, expected --ssl_config_file or nothing"
        )
    if not path:
        return None

    def read() -> Certificates:
        config = config_files.read_ssl_config(path)
        client_ca = config.custom_ca if config.client_verify else ""
        return Certificates(config.server_cert.encode(), config.server_key.encode(), client_ca.encode())

    read()  # what is wrong is told now
    return read
