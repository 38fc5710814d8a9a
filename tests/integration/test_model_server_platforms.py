"""`tensorflow_model_server` with models of other platforms, next to one of TensorFlow's."""

import json
from pathlib import Path

import numpy as np
import pytest

from support.model_server import model_server
from support.onnx_models import save_linear

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "examples" / "python_model"
WEIGHTS = np.array([[1, 0], [0, 2]], np.float32)


def test_models_of_several_platforms_share_a_server(half_models: Path, tmp_path: Path) -> None:
    save_linear(tmp_path / "linear" / "7", WEIGHTS)
    models = [
        ("half", half_models / "half_plus_two", "tensorflow"),
        ("linear", tmp_path / "linear", "onnxruntime"),
        ("scorer", EXAMPLE, "python"),
    ]
    entries = (
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "{platform}" }}'
        for name, path, platform in models
    )
    (tmp_path / "models.txt").write_text(f"model_config_list {{ {' '.join(entries)} }}")
    questions = {
        "half": ([2.0], {"predictions": [3.0]}),
        "linear": ([[1.0, 1.0]], {"predictions": [{"y": [1.0, 2.0], "mean": 1.5}]}),
        "scorer": (["good"], {"predictions": [1.0]}),
    }
    with model_server(tmp_path, f"--model_config_file={tmp_path / 'models.txt'}", "--enable_batching") as server:
        for name, (instances, expected) in questions.items():
            body = json.dumps({"instances": instances}).encode()
            code, text, _ = server.http("POST", f"/v1/models/{name}:predict", body)
            assert (code, json.loads(text)) == (200, expected), text
        code, text, _ = server.http("GET", "/v1/models/linear")
        assert json.loads(text)["model_version_status"][0]["version"] == "7"
        assert server.stop() == 0
