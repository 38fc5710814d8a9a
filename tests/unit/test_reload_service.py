"""HandleReloadConfigRequest: what it takes, hands on and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from protos import model_server_config_pb2, serving_pb2
from router.lifecycle.config import ServerConfig, Specific
from router.reload_service import ReloadService
from tessera.errors import FailedPreconditionError, InvalidArgumentError


class _Lifecycle:
    def __init__(self) -> None:
        self.counters = {":loads": 3, ":failures": 0}
        self.applied: list[tuple[ServerConfig, float | None]] = []

    def apply_from_thread(self, config: ServerConfig, *, timeout_s: float | None = None) -> None:
        self.applied.append((config, timeout_s))
        if any(model.labels for model in config.models):
            raise FailedPreconditionError("not available")
        self.counters[":loads"] += len(config.models)


def _handle(lifecycle: _Lifecycle, config: Any, *metrics: str) -> serving_pb2.ReloadConfigResponse:
    request = serving_pb2.ReloadConfigRequest(config=config.SerializeToString(), metric_names=metrics)
    service = ReloadService(cast(Any, lifecycle), 5.0)
    return serving_pb2.ReloadConfigResponse.FromString(
        service.handle_reload_config_request(request.SerializeToString())
    )


def _config() -> model_server_config_pb2.ModelServerConfig:
    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add(name="m", base_path="/models/m", model_platform="tensorflow")
    model.model_version_policy.specific.versions.append(7)
    return config


def test_a_configuration_is_applied_and_counters_are_answered() -> None:
    lifecycle = _Lifecycle()
    answer = _handle(lifecycle, _config(), ":loads", ":unknown", ":failures")
    ((applied, timeout_s),) = lifecycle.applied
    assert timeout_s == 5.0
    assert (applied.models[0].name, applied.models[0].base_path) == ("m", Path("/models/m"))
    assert applied.models[0].versions == Specific(frozenset({7}))
    assert answer.HasField("status")
    assert (answer.status.error_code, answer.status.error_message) == (0, "")
    assert [(metric.name, metric.int64_value_increase) for metric in answer.metric] == [(":loads", 1), (":failures", 0)]


def test_an_empty_list_is_a_configuration_and_nothing_is_none() -> None:
    lifecycle = _Lifecycle()
    empty = model_server_config_pb2.ModelServerConfig()
    empty.model_config_list.SetInParent()
    _handle(lifecycle, empty)
    assert lifecycle.applied[0][0] == ServerConfig()
    with pytest.raises(InvalidArgumentError, match="config: got none, expected a model_config_list"):
        _handle(lifecycle, model_server_config_pb2.ModelServerConfig())


def test_refusals_are_the_status_of_the_call() -> None:
    config = _config()
    config.model_config_list.config[0].version_labels["stable"] = 1
    with pytest.raises(FailedPreconditionError, match="not available"):
        _handle(_Lifecycle(), config)
    with pytest.raises(InvalidArgumentError, match="ReloadConfigRequest: cannot be parsed"):
        ReloadService(cast(Any, _Lifecycle()), 5.0).handle_reload_config_request(b"\x0a\xff")
    with pytest.raises(InvalidArgumentError, match="ReloadConfigRequest: cannot be parsed"):
        ReloadService(cast(Any, _Lifecycle()), 5.0).handle_reload_config_request(b"\x0a\x01\xff")
