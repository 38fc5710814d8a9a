"""A hard bound on the memory of the process, and what of it is for blobs."""

from __future__ import annotations

import ctypes
import resource

_M_ARENA_MAX = -8  # of glibc's mallopt(3)
_PTHREAD_ATTR_BYTES = 64  # at least sizeof(pthread_attr_t) on x86-64
_THREAD_STACK_BYTES = 1 << 20


def limit_address_space(limit_bytes: int) -> None:
    """Bound the address space of this process (RLIMIT_AS): what does not fit fails to map instead of ousting others.

    So that the limit is left for blobs, glibc gets one allocation arena (each reserves 64 MiB of address space) and
    threads get stacks of 1 MiB (by default each reserves 8 MiB). REQUIRED: called before threads start.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_ARENA_MAX, 1)
    attributes = ctypes.create_string_buffer(_PTHREAD_ATTR_BYTES)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_THREAD_STACK_BYTES))
    libc.pthread_setattr_default_np(attributes)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def blob_share(limit_bytes: int) -> int:
    """Return how much of a process's memory is for blobs, when nothing else is said: three quarters."""
    return limit_bytes * 3 // 4
