"""The folders of cpp_ext are layers: each includes only itself and what is below it."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CPP_EXT = CHECKOUT / "cpp_ext"

# A folder may include these others; "python" is the top.
ALLOWED = {
    "base": set(),
    "batch": {"base"},
    "table": {"base"},
    "rpc": {"base", "table"},
    "ops": {"base"},
    "graph": {"base", "batch", "table", "ops"},
    "python": {"base", "batch", "table", "rpc", "ops", "graph"},
}
# What each may include of other projects, by the beginning of the path; a folder that is not named may not.
FOREIGN = {
    "grpc": {"rpc"},
    "tensorflow/": {"ops", "graph", "python"},
    "pybind11/": {"python"},
    "Python.h": {"python"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)


def includes_of(text: str) -> list[str]:
    return INCLUDE.findall(text)


def violations(folder: str, text: str) -> list[str]:
    """Return the includes in `text`, a file of `folder`, that point up or at a project that is not for this folder."""
    wrong = []
    for include in includes_of(text):
        parts = include.split("/")
        if parts[0] == "cpp_ext":
            if parts[1] != folder and parts[1] not in ALLOWED[folder]:
                wrong.append(include)
        elif any(include.startswith(prefix) and folder not in allowed for prefix, allowed in FOREIGN.items()):
            wrong.append(include)
    return wrong


def sources() -> list[Path]:
    return sorted(path for path in CPP_EXT.rglob("*") if path.suffix in {".h", ".cc"})


def test_every_folder_is_a_known_layer() -> None:
    assert {path.relative_to(CPP_EXT).parts[0] for path in sources()} == set(ALLOWED)


def test_includes_point_down() -> None:
    wrong = {
        str(path.relative_to(CHECKOUT)): found
        for path in sources()
        if (found := violations(path.relative_to(CPP_EXT).parts[0], path.read_text()))
    }
    assert wrong == {}


def test_layers_have_no_cycle() -> None:
    for folder, below in ALLOWED.items():
        for other in below:
            assert ALLOWED[other] <= below, f"{folder} includes {other}, hence what that includes"
            assert folder not in ALLOWED[other]


def test_violations_are_found() -> None:
    assert violations("table", '#include "cpp_ext/rpc/server.h"\n') == ["cpp_ext/rpc/server.h"]
    assert violations("base", '#include <string>\n #  include "cpp_ext/table/blob.h"\n') == ["cpp_ext/table/blob.h"]
    assert violations("graph", "#include <grpcpp/grpcpp.h>\n") == ["grpcpp/grpcpp.h"]
    assert violations("rpc", '#include "tensorflow/core/framework/op.h"\n') == ["tensorflow/core/framework/op.h"]
    assert violations("rpc", '#include <grpcpp/grpcpp.h>\n#include "cpp_ext/table/blob.h"\n') == []
