"""The files that `tensorflow_model_server`'s flags name: protobuf's text format, checked, as messages of protos/.

What is said about a text that cannot be parsed is what protobuf's C++ parser says, under TensorFlow Serving's type
names, because scripts look for it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, message_factory, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from protos import batching_parameters_pb2, model_server_config_pb2
from tessera.errors import InvalidArgumentError
from tessera.files import read_text

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_SERVING = "tensorflow.serving."
_PACKAGES = ("tessera.config.", "tessera.batching_parameters.")
_PLATFORM = "tensorflow"

M = TypeVar("M", bound=Message)


class TextProtoError(InvalidArgumentError):
    """A file is not the text of its message.

    Attributes:
        detail: `Error parsing text-format TYPE: LINE:COLUMN: …`, for stderr.
    """

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"Invalid protobuf file: '{path}'")
        self.detail = detail


def parse(text: str, path: str, message: M, *, unknown_fields: bool = False) -> M:
    """Fill `message` from protobuf's text format and return it; `path` is for messages.

    With `unknown_fields`, fields that `message` does not have are left out instead of refused.

    Raises:
        TextProtoError: the text is wrong.
    """
    try:
        pool: Any = message.DESCRIPTOR.file.pool  # where what an Any names is looked for
        text_format.Parse(text, message, allow_unknown_field=unknown_fields, descriptor_pool=pool)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split()) or "is nested too deeply"
        said = re.sub(r"^(\d+:\d+) : ", r"\1: ", said)
        for package in _PACKAGES:
            said = said.replace(package, _SERVING)
        raise TextProtoError(path, f"Error parsing text-format {_SERVING}{message.DESCRIPTOR.name}: {said}") from None
    return message


def read_model_server_config(path: str) -> model_server_config_pb2.ModelServerConfig:
    """Read --model_config_file.

    Raises:
        NotFoundError, InvalidArgumentError: as `read_text` and `parse`.
    """
    return parse(read_text(path), path, model_server_config_pb2.ModelServerConfig())


def read_ssl_config(path: str) -> model_server_config_pb2.SSLConfig:
    """Read --ssl_config_file.

    Raises:
        NotFoundError, InvalidArgumentError: as above, or the key or the certificate is missing.
    """
    config = parse(read_text(path), path, model_server_config_pb2.SSLConfig())
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise InvalidArgumentError(f"{path}: {field} is missing, expected PEM text")
    if config.client_verify and not config.custom_ca:
        raise InvalidArgumentError(f"{path}: client_verify needs custom_ca, the certificates of who signs clients'")
    return config


def read_metrics_path(path: str) -> str:
    """Read --monitoring_config_file; return where Prometheus reads, empty for nowhere.

    Raises:
        NotFoundError, InvalidArgumentError: as above, or the path does not begin with a slash.
    """
    config = parse(read_text(path), path, model_server_config_pb2.MonitoringConfig()).prometheus_config
    if not config.enable:
        return ""
    if config.path and not config.path.startswith("/"):
        raise InvalidArgumentError(f"{path}: prometheus_config.path: got {config.path!r}, expected it to begin with /")
    return config.path or DEFAULT_METRICS_PATH


def read_intra_op_threads(path: str) -> int:
    """Read --tensorflow_session_config_file; return intra_op_parallelism_threads, the one field with a meaning here.

    Raises:
        NotFoundError, InvalidArgumentError: as above.
    """
    text = read_text(path)
    config = parse(text, path, model_server_config_pb2.ConfigProto(), unknown_fields=True)
    return max(0, config.intra_op_parallelism_threads)


def read_platform_config(path: str) -> model_server_config_pb2.SessionBundleConfig:
    """Read --platform_config_file; see `parse_platform_config`."""
    return parse_platform_config(read_text(path), path)


def parse_platform_config(text: str, path: str) -> model_server_config_pb2.SessionBundleConfig:
    """Return the legacy_config of the entry `tensorflow`; `path` is for messages.

    Raises:
        InvalidArgumentError: the text is wrong, or there is no such entry.
    """
    found = parse(text, path, _upstream("PlatformConfigMap")(), unknown_fields=True)
    entries: Any = found.platform_configs
    if _PLATFORM not in entries:
        raise InvalidArgumentError(f"{path}: no entry {_PLATFORM!r}, expected one; got {sorted(entries)}")
    adapter = _upstream("SavedModelBundleSourceAdapterConfig")()
    packed = entries[_PLATFORM].source_adapter_config
    if packed.type_url and not packed.Unpack(adapter):
        raise InvalidArgumentError(
            f"{path}: source_adapter_config: got a {packed.type_url}, expected a {adapter.DESCRIPTOR.full_name}"
        )
    result = model_server_config_pb2.SessionBundleConfig()
    result.ParseFromString(adapter.legacy_config.SerializeToString())
    return result


def batching_text(parameters: batching_parameters_pb2.BatchingParameters) -> str:
    """Return the text of a message that was part of another one, for what reads the text of a file."""
    return text_format.MessageToString(parameters)


@cache
def _upstream(name: str) -> Any:
    """Return the class of a message under TensorFlow Serving's own type name, which an Any in a text file names.

    It lives in a pool of its own: the process's may have TensorFlow Serving's modules in it.
    """
    pool = DescriptorPool()
    needed = [model_server_config_pb2.DESCRIPTOR]
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    while needed:
        descriptor = needed.pop()
        file = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(file)
        files[descriptor.name] = file
        needed += [one for one in descriptor.dependencies if one.name not in files]
    for file in reversed(files.values()):  # what is imported first
        text = text_format.MessageToString(file)
        for package in _PACKAGES:
            text = text.replace(f".{package}", f".{_SERVING}").replace(f'"{package[:-1]}"', f'"{_SERVING[:-1]}"')
        pool.Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(_SERVING + name))
