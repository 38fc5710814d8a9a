"""Memory limits of the process: how much there is, and a hard bound on it."""

from __future__ import annotations

import ctypes
import os
import resource

_M_ARENA_MAX = -8  # of glibc's mallopt(3)


def limit_address_space(limit_bytes: int) -> None:
    """Bound the address space of this process (RLIMIT_AS): what does not fit fails to map instead of ousting others.

    Also bounds glibc's allocation arenas, each of which reserves 64 MiB of address space. REQUIRED: called before
    threads start.
    """
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def machine_memory_bytes() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
