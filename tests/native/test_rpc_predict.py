"""Predict over the fan-out: graphs, predictor, native servers and stores together.

The scenarios are in `support.predict_over_fanout`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.predict_over_fanout import SCENARIOS
from support.small_model import SmallModel, make_small_model

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("predict"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(model: SmallModel, scenario: str) -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "support.predict_over_fanout", scenario, str(model.repository)],
        check=False,
        input=json.dumps({"expected": model.expected, "inputs": model.inputs}),
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": f"{tests}:{tests.parent}"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"
