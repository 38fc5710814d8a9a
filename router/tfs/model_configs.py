"""TensorFlow Serving's ModelServerConfig, from a file or a ReloadConfigRequest, as values of the lifecycle."""

from __future__ import annotations

from pathlib import Path

from protos import model_server_config_pb2 as pb
from router.lifecycle.config import (
    All,
    Latest,
    ModelConfig,
    RequestLogging,
    ServerConfig,
    Shadow,
    Specific,
    TrafficSplit,
    VersionPolicy,
)
from router.tfs.config_files import read_model_server_config
from tessera.errors import InvalidArgumentError, UnimplementedError

TENSORFLOW = "tensorflow"


def read_server_config(path: str) -> ServerConfig:
    """Read a --model_config_file.

    Raises:
        NotFoundError, InvalidArgumentError: it cannot be read, is not a ModelServerConfig, or says what cannot be.
    """
    return server_config(read_model_server_config(path))


def server_config(message: pb.ModelServerConfig) -> ServerConfig:
    """Convert; `router.lifecycle.config.check` then says whether it may replace what is served.

    Raises:
        UnimplementedError: it is a custom_model_config.
        InvalidArgumentError: a field is wrong; names the model.
    """
    if message.WhichOneof("config") == "custom_model_config":
        raise UnimplementedError("custom_model_config: is not supported, expected model_config_list")
    return ServerConfig(tuple(_model(model) for model in message.model_config_list.config))


def _model(model: pb.ModelConfig) -> ModelConfig:
    try:
        return ModelConfig(
            name=model.name,
            base_path=Path(model.base_path),
            platform=_platform(model),
            versions=_versions(model.model_version_policy),
            labels=dict(model.version_labels),
            switch="old_first" if model.switch_order == pb.OLD_FIRST else "new_first",
            split=_split(model.traffic_split) if model.HasField("traffic_split") else None,
            shadow=_shadow(model.shadow) if model.HasField("shadow") else None,
            logging=_logging(model.logging_config) if model.HasField("logging_config") else None,
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"model {model.name}: {error.message}") from None


def _platform(model: pb.ModelConfig) -> str:
    if model.model_type == pb.MODEL_TYPE_UNSPECIFIED:
        return model.model_platform
    if model.model_platform:
        raise InvalidArgumentError("Illegal setting both model_type (deprecated) and model_platform")
    return TENSORFLOW if model.model_type == pb.TENSORFLOW else ""


def _versions(policy: pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> VersionPolicy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(policy.specific.versions))
    return Latest(policy.latest.num_versions or 1)


def _split(split: pb.TrafficSplit) -> TrafficSplit:
    percent: dict[int | str, float] = {}
    for share in split.share:
        target = _target(share, "traffic_split.share")
        if target in percent:
            raise InvalidArgumentError(f"traffic_split: got {target!r} twice, expected one share of each")
        percent[target] = share.percent
    return TrafficSplit(percent, split.sticky_header.lower())


def _shadow(shadow: pb.Shadow) -> Shadow:
    target = _target(shadow, "shadow")
    percent = shadow.percent if shadow.HasField("percent") else Shadow.percent
    return Shadow(target, percent, shadow.tolerance if shadow.HasField("tolerance") else Shadow.tolerance)


def _target(message: pb.TrafficSplit.Share | pb.Shadow, place: str) -> int | str:
    choice = message.WhichOneof("target")
    if choice is None or (choice == "label" and not message.label):
        raise InvalidArgumentError(f"{place}: got neither version nor label, expected one of them")
    return message.version if choice == "version" else message.label


def _logging(logging: pb.LoggingConfig) -> RequestLogging:
    if logging.HasField("custom_logging_config"):
        raise InvalidArgumentError("logging_config.custom_logging_config: is not supported, expected sampling_config")
    collector = logging.log_collector_config
    return RequestLogging(
        filename_prefix=collector.filename_prefix,
        sampling_rate=logging.sampling_config.sampling_rate,
        type=collector.type,
        max_file_bytes=logging.max_file_bytes or RequestLogging.max_file_bytes,
        max_files=logging.max_files or RequestLogging.max_files,
    )
