"""The memory that a process may use, from files as the kernel has them."""

import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tessera.memory import machine_memory_bytes, memory_limit_bytes

MIB = 1 << 20
Limit = Callable[[str, Mapping[str, str]], int]


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Return what measures with /proc/self/cgroup as given, and files of the mounted groups."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def measure(groups: str, files: Mapping[str, str]) -> int:
        (tmp_path / "groups").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory_limit_bytes(tmp_path / "groups", tmp_path / "mount")

    return measure


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("", {}),
        ("0::/a\n", {"a/memory.max": "max\n"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}),
        ("3:cpuset:/a\n", {"memory/a/memory.limit_in_bytes": "7\n", "a/memory.max": "7\n"}),
    ],
)
def test_without_limits_it_is_the_machine(limit: Limit, groups: str, files: Mapping[str, str]) -> None:
    assert limit(groups, files) == machine_memory_bytes() > 64 * MIB


def test_without_proc_it_is_the_machine(limit: Limit, tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path / "nowhere") == machine_memory_bytes()


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a/b\n", {"a/b/memory.max": f"{3 * MIB}\n", "a/memory.max": f"{2 * MIB}\n"}),
        ("0::/\n", {"memory.max": f"{2 * MIB}\n"}),
        # Seen from within a container: the path is the one outside.
        ("4:memory:/docker/12ab\n0::/\n", {"memory/memory.limit_in_bytes": f"{2 * MIB}\n"}),
        ("5:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{2 * MIB}\n"}),
    ],
)
def test_the_least_of_its_groups(limit: Limit, groups: str, files: Mapping[str, str]) -> None:
    assert limit(groups, files) == 2 * MIB


def test_the_limit_of_the_address_space_counts(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIB, resource.RLIM_INFINITY))
    assert limit("0::/\n", {"memory.max": f"{2 * MIB}\n"}) == MIB
