"""The router's settings that `tensorflow_model_server` has no flag for, as flags in its syntax: `--etcd=host:port`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from router.settings import RouterSettings
from router.tfs.flags import Flag, Kind, Value
from tessera.settings import Option, options_of

# What flags of TensorFlow Serving say under names of their own.
_SAID_OTHERWISE = """
listen unix_socket grpc_channel_arguments rest_listen rest_timeout_s rest_cors rest_threads metrics_path
model model_config_file model_config_poll_s model_poll_s load_threads load_retries load_retry_interval_s
labels_for_unavailable saved_model_tags warmup warmup_iterations request_batching
per_model_batching_parameters prefer_tflite tflite_pools tflite_interpreters_per_pool method_name_check
profiler tensor_content intra_op_threads batching_parameters_file enable_batching tls_cert tls_key
tls_client_ca
"""
_KINDS: dict[Any, Kind] = {bool: "bool"}


def own_flags() -> tuple[Flag, ...]:
    """Return the flags; a value is text as the settings take it, but for what is true or false."""
    return tuple(_flag(option) for option in options_of(RouterSettings) if option.name not in _SAID_OTHERWISE.split())


def own_settings(given: Mapping[str, Value]) -> dict[str, Any]:
    """Return the settings that the given flags say.

    Raises:
        SettingsError: a value is wrong; names the flag.
    """
    return {
        option.name: option.parse(given[option.name], f"--{option.name}")
        for option in options_of(RouterSettings)
        if option.name in given and option.name not in _SAID_OTHERWISE.split()
    }


def _flag(option: Option) -> Flag:
    kind = _KINDS.get(option.kind, "string")
    default = option.spec.default is True if kind == "bool" else option.shown_default
    text = re.sub(r"--[a-z-]+", lambda match: "--" + match[0][2:].replace("-", "_"), option.help)
    return Flag(option.name, kind, default, f"{text[0].upper()}{text[1:]}.", group=1)
