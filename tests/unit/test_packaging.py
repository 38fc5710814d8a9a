"""What is installed, what is locked, and how long files may be."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = {"bench", "examples"}
MAX_LINES = 500
LONG_LINES = 300

LONG_FILES = {
    "cpp_ext/_graph.pyi": "the interface of one module",
    "cpp_ext/graph/graph.cc": "the steps of loading, one after the other",
    "cpp_ext/rpc/server_call.cc": "one slot, from a call that comes to its answer",
    "placement/etcd_store.py": "one class that implements every method of the Store contract",
    "router/models.py": "one state, what is served, and every step that changes it",
    "tests/support/models.py": "a list of small models, one function each",
    "tests/support/store_contract.py": "one conformance suite, one method a clause of the contract",
    "tests/unit/test_placement_change.py": "every crash point of one state machine",
    "tests/unit/test_lifecycle_core.py": "one rule of one set of decisions a test",
    "tests/unit/test_lifecycle_manager.py": "one rule of one event loop a test, with the server that they share",
    "tests/unit/test_placement_operation.py": "every crash point of one state machine",
    "tests/cpp/rpc_transport_test.cc": "one clause of the transport's contract a test",
    "tests/native/test_predictor_codes.py": "the table of codes and texts, one row a mistake",
    "tests/native/test_rpc_fanout.py": "one clause of the fan-out's contract a test",
    "tests/native/test_graph_batching_races.py": "one race or pitfall a test",
    "tests/native/test_rpc_server.py": "one clause of the server's contract a test",
    "tests/native/test_rpc_tables.py": "one clause of the table store's contract a test",
    "tests/support/predict_over_fanout.py": "one program that several tests run as a process",
}
"""Files over 300 lines, with the reason for each."""

_SUFFIXES = {".py", ".pyi", ".cc", ".h", ".proto", ".cmake", ".toml"}
_BUILT = ("build", "dist", ".venv", ".demo")


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _sources() -> list[Path]:
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in _SUFFIXES
        and not any(part in _BUILT or part.startswith(".") for part in path.relative_to(ROOT).parts)
        and "_pb2" not in path.name
        and path.is_file()
    ]


def test_no_source_file_is_too_long_and_long_ones_have_a_reason() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in _sources()}
    assert len(lengths) > 100  # the walk does find the sources
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
    long_ones = {name for name, lines in lengths.items() if lines > LONG_LINES}
    assert long_ones - LONG_FILES.keys() == set(), "over 300 lines without a reason in LONG_FILES"
    assert LONG_FILES.keys() - long_ones == set(), "no longer over 300 lines: take it out of LONG_FILES"


def test_the_wheel_has_exactly_the_packages_that_are_meant_to_be_installed() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(_pyproject()["tool"]["scikit-build"]["wheel"]["packages"]) == packages - NOT_INSTALLED
    assert packages >= NOT_INSTALLED
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_linters_look_at_every_package() -> None:
    tools = _pyproject()["tool"]
    installed = set(tools["scikit-build"]["wheel"]["packages"])
    assert set(tools["importlinter"]["root_packages"]) == installed
    assert set(tools["mypy"]["files"]) == installed | NOT_INSTALLED | {"tests"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    listed = re.search(r"^PYTHON_SOURCES := (.*)$", makefile, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) == installed | NOT_INSTALLED | {"tests"}


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_every_dependency_is_locked_to_one_version() -> None:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    locked = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in locked)
    names = [_name(line) for line in locked]
    assert len(names) == len(set(names))
    content = _pyproject()
    extras = content["project"]["optional-dependencies"].values()
    wanted = [
        *content["build-system"]["requires"],
        *content["project"]["dependencies"],
        *(requirement for extra in extras for requirement in extra),
    ]
    assert {_name(requirement) for requirement in wanted} - set(names) == set()


def test_the_commands_are_what_pyproject_says() -> None:
    from admin import cli
    from router.tfs import main as tfs

    mains = {"tessera": cli.main, "tensorflow_model_server": tfs.main}
    scripts = {name: f"{main.__module__}:{main.__name__}" for name, main in mains.items()}
    assert _pyproject()["project"]["scripts"] == scripts
