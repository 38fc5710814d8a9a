"""The tutorials, followed from the first command to the last."""

import os
from pathlib import Path

import pytest

from support.tutorial import ROOT, reader

pytestmark = pytest.mark.integration
TUTORIALS = ROOT / "docs/tutorials"
LONG = pytest.mark.skipif("TESSERA_TUTORIALS" not in os.environ, reason="takes minutes: make test-tutorials")


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("name", "quick", "commands"),
    [
        pytest.param("inception-kubernetes.md", True, 20, id="inception-quick"),
        pytest.param("inception-kubernetes.md", False, 30, marks=LONG, id="inception-full"),
        pytest.param("train-to-serve.md", True, 9, marks=LONG, id="train-quick"),
        pytest.param("train-to-serve.md", False, 9, marks=LONG, id="train-full"),
    ],
)
def test_a_reader_reaches_the_end(tmp_path: Path, name: str, quick: bool, commands: int) -> None:
    with reader(tmp_path) as someone:
        assert someone.follow(TUTORIALS / name, quick=quick) >= commands
