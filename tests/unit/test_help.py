"""The --help texts, word for word. `TESSERA_RENEW_GOLDEN=1 pytest tests/unit/test_help.py` writes them anew."""

import ast
import sys
from pathlib import Path

import pytest

from admin.cli import main
from router.settings import RouterSettings
from shard_server.settings import ShardServerSettings
from support.golden import check_golden
from tessera.settings import load

ROOT = Path(__file__).parents[2]
VERBS = (
    "",
    "partition",
    "verify",
    "batch",
    "batch plan",
    "batch apply",
    "up",
    "model",
    "model load",
    "predict",
    "status",
    "reshard",
    "reshard plan",
    "reshard start",
    "reshard abort",
    "reshard verify",
    "reshard commit",
    "cluster",
    "cluster check",
    "cluster restore",
    "cluster rebuild",
    "controller",
    "model rollout",
    "model rollback",
    "server",
    "server drain",
    "k8s",
    "k8s render",
    "k8s job",
    "k8s scale",
    "server add",
    "model unload",
    "model label",
    "model split",
    "placement",
    "placement show",
    "placement diff",
    "placement history",
    "audit",
    "explain",
)

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="argparse lays help out in another way from 3.13 on"
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.replace(" ", "_") or "tessera")
def test_help_of_the_command(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    check_golden(f"help_{verb.replace(' ', '_') or 'tessera'}.txt", capsys.readouterr().out)


@pytest.mark.parametrize(("process", "settings"), [("router", RouterSettings), ("shard_server", ShardServerSettings)])
def test_help_of_the_processes(
    process: str, settings: type, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    # Importing the process's own module would bring the native core.
    description = ast.get_docstring(ast.parse((ROOT / process / "__main__.py").read_text("utf-8")))
    with pytest.raises(SystemExit) as caught:
        load(settings, process, ["--help"], {}, description=description or "")
    assert caught.value.code == 0
    check_golden(f"help_python_m_{process}.txt", capsys.readouterr().out)
