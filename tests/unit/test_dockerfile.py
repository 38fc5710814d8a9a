"""The Dockerfile: what it copies exists, stages are as stated, and it ends without rights, compiler or installer."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

Instruction = tuple[str, str]


def _instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def _stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Return stage → (what it begins with, its instructions), in the order of the file."""
    stages: dict[str, tuple[str, list[Instruction]]] = {}
    name = ""
    for word, rest in _instructions():
        if word == "FROM":
            begin, _, name = rest.partition(" AS ")
            stages[name] = (begin, [])
        elif name:
            stages[name][1].append((word, rest))
    return stages


def _all(stage: str, word: str) -> list[str]:
    return [rest for name, rest in _stages()[stage][1] if name == word]


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def _ignored() -> tuple[list[str], list[str]]:
    """Return what .dockerignore lets in, and the patterns that it keeps out again."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "*", "nothing goes in that is not named"
    return [line[1:] for line in lines if line.startswith("!")], [line for line in lines[1:] if line[0] != "!"]


def test_the_stages() -> None:
    assert {name: begin for name, (begin, _) in _stages().items()} == {
        "base": "${BASE}",
        "dependencies": "base",
        "build": "dependencies",
        "trimmed": "dependencies",
        "image": "base",
    }
    assert [*_stages()][-1] == "image", "what is built without --target"
    explained = re.findall(r"^#   (\w+)  ", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert explained == [*_stages()]


def test_the_base_is_named_by_its_content() -> None:
    (base,) = [rest for word, rest in _instructions()[:1] if word == "ARG"]
    assert re.fullmatch(r"BASE=docker\.io/library/debian:bookworm-slim@sha256:[0-9a-f]{64}", base)


def test_what_is_copied_exists_and_is_let_in() -> None:
    allowed, _ = _ignored()
    for stage, (_, instructions) in _stages().items():
        for word, rest in instructions:
            assert word != "ADD", "COPY fetches nothing and unpacks nothing"
            if word != "COPY":
                continue
            *sources, _ = re.sub(r"--\S+ ", "", rest).split()
            origin = re.match(r"--from=(\S+) ", rest)
            if origin is not None:
                assert [*_stages()].index(origin[1]) < [*_stages()].index(stage)
                continue
            for source in sources:
                assert source == "." or source in allowed, source
                assert (ROOT / source).exists(), source


def test_what_is_let_in_is_what_the_wheel_is_made_of() -> None:
    allowed, excluded = _ignored()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["scikit-build"]["wheel"]["packages"]
    files = {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "requirements.lock"}
    assert set(allowed) == {*packages, *files}
    assert all((ROOT / name).exists() for name in allowed)
    built = {line for line in (ROOT / ".gitignore").read_text("utf-8").splitlines() if line.startswith("protos/")}
    assert built | {"**/*.so", "**/__pycache__"} == set(excluded)


def test_the_build_has_the_system_packages_of_the_makefile() -> None:
    """What only tests and `tessera up` need is left out."""
    listed = re.search(r"^SYSTEM_PACKAGES := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert listed is not None
    wanted = set(listed[1].replace("\\\n", " ").split())
    wanted -= {
        "libgtest-dev",
        "etcd-server",
        "nghttp2-client",
        "curl",
        "ccache",
        "python3-venv",
        "libtcmalloc-minimal4",
    }
    (installed,) = re.findall(r"--no-install-recommends (.*?) &&", " ".join(_all("build", "RUN")))
    assert set(installed.split()) == wanted
    assert "python3-venv" in " ".join(_all("dependencies", "RUN"))
    assert "libtcmalloc-minimal4" in " ".join(_all("base", "RUN"))


def test_what_is_said_to_be_built_in_is_installed_where_it_is_built() -> None:
    """dpkg-query ends the build of the image at a package that is not there."""
    runs = " ".join(_all("build", "RUN"))
    (installed,) = re.findall(r"--no-install-recommends (.*?) &&", runs)
    (named,) = re.findall(r"dpkg-query .*?\\n' (.*?) >", runs)
    assert set(named.split()) == {
        package for package in installed.split() if package.startswith(("lib", "rapid", "zlib"))
    }


def test_the_image_has_no_compiler_and_no_installer() -> None:
    text = " ".join([*_all("base", "RUN"), *_all("image", "RUN")])
    assert not re.search(r"\bg\+\+|\bgcc\b|\bcmake\b|-dev\b|\bpip\b|\bcurl\b", text)
    assert "uninstall --yes libclang setuptools pip" in " ".join(_all("trimmed", "RUN"))
    (packages,) = re.findall(r"--no-install-recommends (.*?) &&", text)
    for command in re.findall(r"apt-get install\b.*?(?= && )", " ".join(rest for _, rest in _instructions())):
        assert "--no-install-recommends" in command
    assert "python3" in packages.split()


def test_it_runs_without_rights() -> None:
    (user,) = _all("image", "USER")
    uid, gid = map(int, user.split(":"))  # numbers: Kubernetes cannot tell whether a name is root
    assert uid >= 10_000
    assert gid >= 10_000
    words = [word for word, _ in _stages()["image"][1]]
    assert "RUN" not in words[words.index("USER") :], "nothing in the image belongs to the user"


def test_how_it_is_started_and_ended() -> None:
    assert _all("image", "STOPSIGNAL") == ["SIGTERM"]
    assert _all("image", "HEALTHCHECK") == ["NONE"]
    assert _all("image", "CMD") == ['["tessera", "--help"]']
    assert _all("image", "ENTRYPOINT") == []  # any of the commands may be given
    assert "tessera" in _project()["scripts"]


def test_labels_and_versions_are_those_of_the_project() -> None:
    (labels,) = _all("image", "LABEL")
    values = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', labels))
    assert values.keys() == {"title", "description", "licenses", "version", "revision", "base.name"}
    assert values["licenses"] == _project()["license"]
    assert f"VERSION={_project()['version']}" in _all("image", "ARG")


@pytest.mark.parametrize("port", ["8500", "8501", "8502", "8600", "8601"])
def test_the_ports(port: str) -> None:
    assert port in _all("image", "EXPOSE")[0].split()
