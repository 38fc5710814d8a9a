"""A running `tensorflow_model_server` divides, copies and logs the traffic of a model, and tells it as metrics."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import prediction_log_pb2

from support.model_server import ModelServer, model_server, wait_for
from support.serving_requests import TIMEOUT_S, client, predict

pytestmark = pytest.mark.integration

_PATH = "/monitoring/prometheus/metrics"
_USERS = [f"user-{i}" for i in range(40)]


def _config(base: Path, more: str) -> str:
    return (
        f'model_config_list {{ config {{ name: "half" base_path: "{base}" model_platform: "tensorflow" '
        f"model_version_policy {{ all {{}} }} {more} }} }}"
    )


def _arguments(directory: Path, config: str) -> list[str]:
    (directory / "models.txt").write_text(config)
    (directory / "monitoring.txt").write_text("prometheus_config { enable: true }")
    return [
        f"--model_config_file={directory / 'models.txt'}",
        f"--monitoring_config_file={directory / 'monitoring.txt'}",
    ]


def _metrics(server: ModelServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, text, _ = server.http("GET", _PATH)
    assert status == 200
    return {
        (sample.name.removesuffix("_total"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(server: ModelServer, name: str, **labels: str) -> float:
    return _metrics(server).get((name, frozenset(labels.items())), 0.0)


def test_splits_copies_logs_and_metrics(half_models: Path, tmp_path: Path) -> None:
    more = """
        version_labels { key: "stable" value: 1 }
        traffic_split { share { label: "stable" percent: 50 } share { version: 2 percent: 50 } sticky_header: "X-User" }
        shadow { version: 2 }
        logging_config {
            log_collector_config { filename_prefix: "%s" } sampling_config { sampling_rate: 1 }
        }
    """
    base, prefix = half_models / "half_plus_three", tmp_path / "log" / "half"
    arguments = _arguments(tmp_path, _config(base, more % prefix))
    environ = {"TF_CPP_MIN_LOG_LEVEL": "1"}  # differences are told as warnings
    with model_server(tmp_path / "server", *arguments, environ=environ) as server, client(server.address) as calls:

        def ask(user: str) -> Any:
            return calls.prediction.Predict(predict(), timeout=TIMEOUT_S, metadata=[("x-user", user)])

        answers = {user: ask(user) for user in _USERS}
        versions = {user: int(answer.model_spec.version.value) for user, answer in answers.items()}
        assert set(versions.values()) == {1, 2}
        for user, version in versions.items():
            assert list(answers[user].outputs["y"].float_val) == [4.0 if version == 1 else 14.0]
            _, text, _ = server.http("POST", "/v1/models/half:predict", {"instances": [[2.0]]}, {"X-User": user})
            assert ("4.0" in text, "14.0" in text) == (True, version == 2)
        first = 2 * sum(version == 1 for version in versions.values())  # those that version 1 answered were copied
        copies = {"model_name": "half", "result": "different"}
        wait_for(lambda: _value(server, "tessera_shadow_requests", **copies) == first, 20, tell=lambda: server.stderr)
        shares = [_value(server, "tessera_traffic_split_requests", model_name="half", share=s) for s in ("stable", "2")]
        assert shares[0] >= first
        assert sum(shares) >= 80
        metric = ":tensorflow:serving:request_"
        assert _value(server, f"{metric}count", model_name="half", status="OK") == 80
        rest = {"model_name": "half", "API": "predict", "entrypoint": "REST"}
        assert _value(server, f"{metric}latency_count", **rest) == 40
        assert _value(server, "tessera_model_state", model_name="half", version="2", state="AVAILABLE") == 1
        logged = {"model_name": "half", "status_code": "OK"}
        wait_for(lambda: _value(server, f"{metric}log_count", **logged) == 80, 20, tell=lambda: server.stderr)
        assert server.stop() == 0
        assert "a copy of a request that version 1 answered" in server.stderr
    (file,) = prefix.parent.iterdir()
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset([str(file)])]
    assert len(logs) == 80
    assert {int(log.log_metadata.model_spec.version.value) for log in logs} == {1, 2}
    _warms_up(base / "1", file, tmp_path / "warm")


def _warms_up(source: Path, log: Path, directory: Path) -> None:
    """The log of one version warms up the next."""
    shutil.copytree(source, directory / "model" / "7")
    (directory / "model" / "7" / "assets.extra").mkdir()
    path = directory / "model" / "7"
    shutil.copy(log, path / "assets.extra" / "tf_serving_warmup_requests")
    with model_server(directory / "server", *_arguments(directory, _config(directory / "model", ""))) as server:
        read = ":tensorflow:serving:model_warmup_records_read"
        assert _value(server, read, model_path=str(path), status="OK") == 80
        assert _value(server, ":tensorflow:serving:request_count", model_name="half", status="OK") == 0
