"""docs/tensorflow-serving.md says what the flags are. `TESSERA_RENEW_GOLDEN=1` writes its table anew."""

import os
import re
from pathlib import Path

from google.protobuf import text_format

from protos import model_server_config_pb2 as pb
from router.tfs.flag_table import TABLE
from router.tfs.flags import parse_flags
from router.tfs.model_configs import server_config
from router.tfs.own_flags import own_flags

PAGE = Path(__file__).parents[2] / "docs" / "tensorflow-serving.md"
_TABLE = re.compile(r"(<!-- flags:begin -->\n)(.*?)(<!-- flags:end -->)", re.DOTALL)


def _table() -> str:
    rows = ["| flag | default | meaning | without meaning here, because |", "| --- | --- | --- | --- |"]
    for flag in TABLE:
        default = flag.shown().partition("=")[2]
        rows.append(f"| `{flag.name}` | `{default}` | {flag.help} | {flag.ignored or '–'} |")
    return "\n".join(rows) + "\n"


def test_the_table_has_every_flag_with_default_and_meaning() -> None:
    text = PAGE.read_text("utf-8")
    if os.environ.get("TESSERA_RENEW_GOLDEN"):
        text = _TABLE.sub(lambda match: match[1] + _table() + match[3], text)
        PAGE.write_text(text, "utf-8")
    found = _TABLE.search(text)
    assert found is not None
    assert found[2] == _table()


def test_the_flags_that_the_text_names_exist() -> None:
    known = {flag.name for flag in (*TABLE, *own_flags())} | {"help", "name"}
    for name in re.findall(r"`--([a-z_0-9]+)[=`]", PAGE.read_text("utf-8")):
        assert name in known, name


def test_the_commands_parse() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    lines = [line for line in blocks.splitlines() if line.strip()]
    assert lines
    for line in lines:
        words = line.removeprefix("tessera serve ").removeprefix("tensorflow_model_server ").split()
        parsed = parse_flags((*TABLE, *own_flags()), words)
        assert parsed.unknown == parsed.errors == (), line


def test_the_example_of_a_model_is_understood() -> None:
    (text,) = re.findall(r"```\n(model_config_list .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (model,) = server_config(text_format.Parse(text, pb.ModelServerConfig())).models
    assert model.split is not None
    assert model.shadow is not None
    assert model.logging is not None


def test_the_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).exists(), target
