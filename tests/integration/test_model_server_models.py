"""The models of a running `tensorflow_model_server` change: versions, the config file, reload by RPC."""

import os
import shutil
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from support.model_server import model_server, wait_for
from support.serving_requests import Client, answer_of, client, predict, status

pytestmark = pytest.mark.integration


def _answers(calls: Client, model: str = "half") -> tuple[float, int] | None:
    try:
        return answer_of(calls, model)
    except grpc.RpcError:
        return None


def _config(**paths: Path) -> str:
    models = [
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}' for name, path in paths.items()
    ]
    return f"model_config_list {{ {' '.join(models)} }}"


def test_versions_come_and_go(half_models: Path, tmp_path: Path) -> None:
    """A half-copied version is not loaded until it is complete; without the newest, latest goes back."""
    source = half_models / "half_plus_three"
    base = tmp_path / "model"
    shutil.copytree(source / "1", base / "1")
    arguments = ("--model_name=half", f"--model_base_path={base}")
    with model_server(tmp_path / "server", *arguments, rest=False) as server, client(server.address) as calls:
        assert answer_of(calls) == (4.0, 1)
        (base / "2" / "variables").mkdir(parents=True)
        shutil.copy(source / "2" / "saved_model.pb", base / "2")
        shutil.copy(source / "2" / "variables" / "variables.index", base / "2" / "variables")
        time.sleep(2.5)
        assert answer_of(calls) == (4.0, 1)
        data = next((source / "2" / "variables").glob("variables.data*"))
        content = data.read_bytes()
        (base / "2" / "variables" / data.name).write_bytes(content[: len(content) // 2])
        time.sleep(1.5)
        assert answer_of(calls) == (4.0, 1)
        (base / "2" / "variables" / data.name).write_bytes(content)
        wait_for(lambda: answer_of(calls) == (14.0, 2), 30, tell=lambda: server.stderr)
        states = calls.call("GetModelStatus", status()).model_version_status
        assert (states[0].version, states[0].state) == (2, 30)
        shutil.rmtree(base / "2")
        wait_for(lambda: answer_of(calls) == (4.0, 1), 30, tell=lambda: server.stderr)
        assert server.process.poll() is None


def test_a_config_file_is_read_again(half_models: Path, tmp_path: Path) -> None:
    two, three = half_models / "half_plus_two", half_models / "half_plus_three"
    path = tmp_path / "models.txt"
    path.write_text(_config(half=two))
    arguments = (f"--model_config_file={path}", "--model_config_file_poll_wait_seconds=1")
    with model_server(tmp_path, *arguments, rest=False) as server, client(server.address) as calls:
        assert answer_of(calls) == (3.0, 123)
        path.write_text("improper")
        wait_for(lambda: "Error parsing text-format" in server.stderr, 20)
        time.sleep(2.5)
        assert server.stderr.count("Error parsing text-format") == 1
        assert answer_of(calls) == (3.0, 123)
        os.replace(_written(tmp_path / "new.txt", _config(half=two, three=three)), path)  # noqa: PTH105 (as editors do)
        wait_for(lambda: _answers(calls, "three") == (14.0, 2), 30, tell=lambda: server.stderr)
        path.write_text(_config(three=three))
        wait_for(lambda: _answers(calls) is None, 30)
        assert answer_of(calls, "three") == (14.0, 2)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _reload(calls: Client, text: str) -> tuple[str, str]:
    """Send the models of a text as a reload; return (code, text) of the RPC, which the answer's status repeats."""
    request = model_management_pb2.ReloadConfigRequest()
    request.config.CopyFrom(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))
    try:
        response = calls.call("HandleReloadConfigRequest", request)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    assert response.status.error_code == 0
    return "OK", response.status.error_message


def test_reload_by_rpc(half_models: Path, tmp_path: Path) -> None:
    """All or nothing: what is refused leaves everything as it was."""
    two, three = half_models / "half_plus_two", half_models / "half_plus_three"
    with (
        model_server(tmp_path, "--model_name=half", f"--model_base_path={two}", rest=False) as server,
        client(server.address) as calls,
    ):
        assert _reload(calls, _config(half=two, three=three)) == ("OK", "")
        assert answer_of(calls, "three") == (14.0, 2)
        for text, code, says in (
            (
                _config(half=two).replace(
                    "{ config", "{ " + _config(half=two)[len("model_config_list { ") : -1] + "config"
                ),
                "INVALID_ARGUMENT",
                "Illegal to list model half multiple times",
            ),
            (_config(half=Path("relative")), "INVALID_ARGUMENT", "to have an absolute path or URI; got base_path()="),
            (
                f'model_config_list {{ config {{ name: "half" base_path: "{two}" }} }}',
                "INVALID_ARGUMENT",
                "Illegal setting neither",
            ),
            (
                _config(half=two).replace("tensorflow", "no"),
                "INVALID_ARGUMENT",
                "Illegal to change a model's platform",
            ),
            (
                _config(half=two).replace(
                    'platform: "tensorflow"', 'platform: "tensorflow" version_labels { key: "a" value: 7 }'
                ),
                "FAILED_PRECONDITION",
                "Request to assign label to version 7 of model half, which is not currently available for inference",
            ),
        ):
            found_code, found_text = _reload(calls, text)
            assert found_code == code, found_text
            assert says in found_text
            assert answer_of(calls) == (3.0, 123)
            assert answer_of(calls, "three") == (14.0, 2)
        labelled = _config(half=two).replace(
            'platform: "tensorflow"', 'platform: "tensorflow" version_labels { key: "stable" value: 123 }'
        )
        assert _reload(calls, labelled) == ("OK", "")
        assert calls.call("Predict", predict(label="stable")).model_spec.version.value == 123
        wait_for(lambda: _answers(calls, "three") is None, 20)
