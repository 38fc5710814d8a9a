"""Every command of the tutorials, also of blocks that cannot run here: it parses, and the files that it names exist."""

import importlib
import re
import shlex
from itertools import pairwise

import pytest

from admin.cli import build_parser
from router.tfs.flag_table import TABLE
from router.tfs.flags import parse_flags
from router.tfs.own_flags import own_flags
from support.tutorial import KINDS, ROOT, Command, blocks, missing

TUTORIALS = ROOT / "docs/tutorials"
NAMES = ("inception-kubernetes.md", "inception-kubernetes.zh.md", "train-to-serve.md")


def _text(name: str) -> str:
    return (TUTORIALS / name).read_text("utf-8")


def _commands() -> list[str]:
    texts = [command.text for name in NAMES for block in blocks(_text(name)) for command in block.commands]
    return list(dict.fromkeys(texts))


def _variables() -> dict[str, str]:
    """Return what the commands export; a value that another command calculates is 1."""
    exported = [re.sub(r"\$\(.*\)", "1", command) for command in _commands() if command.startswith("export ")]
    pairs = (word.partition("=") for command in exported for word in shlex.split(command)[1:])
    return {name: value for name, _, value in pairs} | {"PWD": "/clone"}


def _words(command: str) -> list[str]:
    """Return the words of a command, up to a pipe, as the shell makes them of it."""
    values = _variables()
    words = shlex.split(re.sub(r"\$([A-Z]+)", lambda match: values[match[1]], command), comments=True)
    return words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize("command", _commands())
def test_a_command_parses(command: str) -> None:
    words = _words(command)
    program = words[0]
    if program == "tensorflow_model_server":
        parsed = parse_flags((*TABLE, *own_flags()), words[1:])
        assert parsed.unknown == parsed.errors == ()
    elif program == "tessera":
        if "--" in words:  # a command for the cluster, to which the Job adds etcd and the repository
            inner = words[words.index("--") + 1 :]
            needs_repository = inner[0] in ("model", "reshard", "server")
            build_parser().parse_args([*inner, *(["--repository=/models"] if needs_repository else [])])
        build_parser().parse_args(words[1:])
    elif program == "python":
        module, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
        name = module.removesuffix(".py").replace("/", ".")
        importlib.import_module(name).parser().parse_args(arguments)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), f"the Makefile has no target {words[1]}"
    elif program in ("kubectl", "kind"):
        _check_kubernetes(words[1:])
    elif program == "docker" and words[1] == "run":
        parsed = parse_flags((*TABLE, *own_flags()), words[words.index("tensorflow_model_server") + 1 :])
        assert parsed.unknown == parsed.errors == ()
    elif program == "docker":
        assert words[1] == "build"
        assert (ROOT / words[-1]).is_dir()
    else:
        assert program in ("export", "mkdir", "curl", "cp", "rm"), f"unknown to this test: {program}"


def _check_kubernetes(words: list[str]) -> None:
    """Files exist, and objects of the cluster are defined in the manifests."""
    manifests = "\n".join(path.read_text("utf-8") for path in (ROOT / "k8s").rglob("*.yaml"))
    for flag, value in pairwise(words):
        if flag in ("-k", "--config"):
            assert (ROOT / value).exists(), value
        if flag == "-n":
            assert re.search(rf"kind: Namespace\nmetadata:\s+{{?name: {value}\b|namespace: {value}\b", manifests), value
        if flag == "--selector":
            assert value.replace("=", ": ") in manifests, value
    for name in {word.split("/")[-1] for word in words if re.search(r"(^|/)tessera-[a-z-]+$", word)}:
        assert re.search(rf"\bname: {name}\b", manifests), f"no object {name} in k8s/"


def test_commands_of_every_kind_are_found() -> None:
    programs = {_words(command)[0] for command in _commands()}
    assert programs >= {"tessera", "tensorflow_model_server", "python", "kubectl", "docker"}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_of_known_kinds_and_links_lead_to_files(name: str) -> None:
    text = _text(name)
    found = blocks(text)
    assert {kind for block in found for kind in block.kinds} <= KINDS
    assert len(found) == text.count("```console")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (TUTORIALS / target).exists(), target


def test_the_translation_has_the_same_commands() -> None:
    original, translation = (blocks(_text(name)) for name in NAMES[:2])
    assert translation == original


@pytest.mark.parametrize(
    ("prints", "lacks"),
    [
        (("version 1, … ms",), None),
        (("a b", "version 1, … ms"), None),
        (("version 1, … ms", "a b"), "a b"),  # in another order
        (("version 2, … ms",), "version 2, … ms"),
        (("… b",), None),
        (("b",), "b"),  # not the whole line
    ],
)
def test_what_is_printed_is_compared(prints: tuple[str, ...], lacks: str | None) -> None:
    assert missing(prints, "a    b\n  noise\nversion 1, 3 ms\n") == lacks


def test_commands_are_taken_apart() -> None:
    first, second = blocks(
        "## One\n```console quick\n$ first \\\n    --flag\nout\n…\n$ second\n```\n## Two\n```console\n$ third\n```\n"
    )
    assert [(first.section, first.kinds), (second.section, second.kinds)] == [
        (1, frozenset({"quick"})),
        (2, frozenset()),
    ]
    assert first.commands == (Command("first --flag", ("out",)), Command("second", ()))
