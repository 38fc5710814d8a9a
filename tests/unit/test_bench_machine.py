"""Where results say that they come from."""

import subprocess
from pathlib import Path

from bench import machine


def test_this_machine_is_described() -> None:
    described = machine.describe()
    assert all(described.values()), described
    assert described["tensorflow"]


def test_a_commit_tells_about_changes_but_not_about_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert machine.commit(tmp_path) == ""
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    clean = machine.commit(tmp_path)
    assert len(clean) == 12
    results = tmp_path / "bench" / "results"
    results.mkdir(parents=True)
    results.joinpath("latest.json").write_text("{}")
    assert machine.commit(tmp_path) == clean
    tmp_path.joinpath("changed").write_text("x")
    assert machine.commit(tmp_path) == f"{clean}+changes"
