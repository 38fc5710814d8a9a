"""Becomes another program that dies with its parent: `python launch.py PARENT_PID CPUS PROGRAM ARGUMENT…`.

A program of its own and not a `preexec_fn`: forking a process that has gRPC's threads runs gRPC's fork handlers, which
may abort the child. Started by `admin.processes`; imports the standard library only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the death signal and the cores (`0,1`; empty: all), then replace this program."""
    parent_pid, cpus, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent_pid):  # the parent died before prctl
        sys.exit(1)
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
