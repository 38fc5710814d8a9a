"""Lets work in the background stand back: the priority of single threads for processor and disk."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import threading

_log = logging.getLogger("tessera.priority")

LOWEST_NICE = 19
"""A thread with it gets a hundredth of a core that others want, and all of one that they leave idle."""

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""ioprio_set(2) has no wrapper in libc; its number depends on the machine."""
_IOPRIO_WHO_THREAD = 1
_IOPRIO_IDLE = 3 << 13


def lower_priority(what: str, nice: int = LOWEST_NICE) -> None:
    """Let the calling thread, and those that it starts, stand back for others; `what` names it in the log."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except OSError as error:
        _log.warning("%s at normal priority: %s", what, error.strerror)


def lower_disk_priority(what: str) -> bool:
    """Let the calling thread use disks only when no other wants to; return whether the kernel took it.

    It has an effect where the disk's scheduler knows priorities (BFQ).
    """
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _IOPRIO_WHO_THREAD, 0, _IOPRIO_IDLE) != 0:
        _log.info("%s at normal disk priority: %s", what, os.strerror(ctypes.get_errno()))
        return False
    return True
