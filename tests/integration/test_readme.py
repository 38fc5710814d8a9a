"""The commands of the README's first steps, run as they stand there."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.small_model import SmallModel

pytestmark = pytest.mark.integration

_TIMEOUT_S = 90.0


def _blocks() -> list[str]:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    section = readme.split("## In 60 seconds")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def test_the_first_60_seconds(small_model: SmallModel, tmp_path: Path) -> None:
    prepare, use = _blocks()
    # The model of this test is small: the limit is too. The port may be taken: any free one will do.
    prepare = prepare.replace("256MiB", "64KiB")
    up = prepare.index("tessera up")
    prepare, up_command = (
        prepare[:up],
        prepare[up:].replace("tessera up", "exec tessera up --port 0 --ready-file ready"),
    )
    (tmp_path / "my_saved_model").symlink_to(small_model.saved_models[1])
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    prepared = run(prepare)
    assert "GOES TO" in prepared
    assert "inputs answered by both, 0 refused by both: same" in prepared

    with subprocess.Popen(
        ["bash", "-c", up_command], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
    ) as cluster:
        try:
            deadline = time.monotonic() + _TIMEOUT_S
            while not (tmp_path / "ready").exists():
                assert cluster.poll() is None, cluster.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            used = run(use)
            assert '{"rows": [[' in used
            assert all(f"server-{number}" in used for number in range(4))
        finally:
            cluster.send_signal(signal.SIGINT)
        assert cluster.wait(60) == 0
