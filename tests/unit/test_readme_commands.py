"""The README's commands take the flags that it shows; its files and targets exist."""

import re
import shlex
from pathlib import Path

import pytest

from admin.cli import build_parser
from router.settings import RouterSettings
from router.tfs.flag_table import TABLE
from router.tfs.flags import parse_flags
from router.tfs.own_flags import own_flags
from shard_server.settings import ShardServerSettings
from tessera.settings import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def _commands() -> list[str]:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    return [line for line in blocks.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("line", _commands())
def test_a_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "tensorflow_model_server" or words[:2] == ["tessera", "serve"]:
        parsed = parse_flags((*TABLE, *own_flags()), words[1 + (words[0] == "tessera") :])
        assert parsed.unknown == parsed.errors == ()
    elif words[0] == "tessera":
        build_parser().parse_args(words[1:])
    elif words[:2] == ["python", "-m"]:
        settings = {"router": RouterSettings, "shard_server": ShardServerSettings}[words[2]]
        load(settings, words[2], words[3:], {})
    else:
        assert words[0] == "make"
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), f"the Makefile has no target {words[1]}"


def test_there_are_commands_of_every_kind() -> None:
    found = {shlex.split(line, comments=True)[0] for line in _commands()}
    assert found == {"make", "tessera", "python", "tensorflow_model_server"}


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_environment_variables_and_inline_flags_exist() -> None:
    for name in re.findall(r"`TESSERA__ROUTER__([A-Z_]+)`", README):
        assert name.lower() in RouterSettings.__dataclass_fields__
    for name in re.findall(r"`--([a-z_-]+)[^`]*`", README):
        field = name.replace("-", "_")
        known = {*RouterSettings.__dataclass_fields__, *ShardServerSettings.__dataclass_fields__, "help", "in_process"}
        assert field in known, name
