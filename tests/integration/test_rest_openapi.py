"""The OpenAPI description is true: a tool that knows nothing else makes requests from it and checks the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.rest_port import ask, load, rest_port

pytestmark = pytest.mark.integration

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = {
    "PredictRequest": [{"instances": [[1.0], [2.0]]}, {"inputs": {"x": [[1.0]]}}, {"inputs": [1.0]}],
    "ClassifyRequest": [{"signature_name": "classify_labels", "examples": [{"x": 1.0}]}],
    "RegressRequest": [{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": [2.5]}]}],
}


KNOWN: dict[str, list[Any]] = {"model": ["half"], "version": [1, 2], "label": ["stable"]}


@pytest.mark.timeout(300)
def test_answers_are_as_described(tmp_path: Path) -> None:
    with rest_port(load(tmp_path), metrics_path="/monitoring/prometheus/metrics") as server:
        document = json.loads(ask(server, "GET", "/openapi.json")[1])
        assert "/monitoring/prometheus/metrics" in document["paths"]
        # Names that exist, beside those that are made up, so that answers of all kinds come.
        for path in document["paths"].values():
            for parameter in path.get("parameters", ()):
                known = KNOWN[parameter["name"]]
                parameter["schema"] = {"anyOf": [{"enum": known}, parameter["schema"]]}
                parameter["example"] = known[0]
        for name, examples in EXAMPLES.items():
            document["components"]["schemas"][name]["examples"] = examples
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document), "utf-8")
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(file), f"--url=http://127.0.0.1:{server.port}"),
            *(f"--checks={CHECKS}", "--max-examples=15", "--seed=7", "--phases=examples,coverage,fuzzing"),
            *("--no-color", "--request-timeout=20", "--generation-database=none"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=tmp_path)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        status, _ = ask(server, "POST", "/v1/models/half:predict", {"instances": [[1.0]]})
        assert status == 200
