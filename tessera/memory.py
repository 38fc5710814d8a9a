"""How much memory there is: of the machine, and for this process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def machine_memory_bytes() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit_bytes(groups: Path = _PROC_CGROUP, mount: Path = _CGROUPS) -> int:
    """Return the bytes that this process may use: the least of its limits, and of its container's.

    Args:
        groups: says of which control groups the process is part.
        mount: where they are mounted.
    """
    limits = [machine_memory_bytes(), *_group_limits(groups, mount)]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(limits if address_space == resource.RLIM_INFINITY else [*limits, address_space])


def _group_limits(groups: Path, mount: Path) -> Iterator[int]:
    """Yield the limits of the process's control groups and of those around them, of both versions of the kernel's."""
    try:
        lines = groups.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the one outside of it, which is not there: then its own is the root.
        for group in (Path(path), *Path(path).parents):
            try:
                text = (root / group.relative_to("/") / name).read_text("utf-8").strip()
            except OSError:
                continue
            if text.isdecimal():  # else it is "max"
                yield int(text)
