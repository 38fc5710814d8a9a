"""What the demo reads about the processes that it started."""

import os

from examples.stdlib_modules import cluster


def test_pids_of_every_form_are_collected() -> None:
    ready = {
        "router": "127.0.0.1:8500",
        "etcd": "127.0.0.1:2379",
        "pids": {"router": [11], "servers": {"s0": 12, "s1": [13]}, "etcd": 14},
    }
    running = cluster.parse_ready(ready)
    assert running.server_pids == {"s0": 12, "s1": 13}
    assert sorted(running.pids) == [11, 12, 13, 14]


def test_memory_is_read_with_and_without_a_limit() -> None:
    status = "Name:\tpython\nVmSize:\t  204800 kB\nVmRSS:\t   1024 kB\n"
    limits = "Limit   Soft Limit  Hard Limit Units\nMax address space         419430400     unlimited  bytes\n"
    assert cluster.parse_memory(status, limits) == cluster.Memory(1 << 20, 200 << 20, 400 << 20)
    unlimited = limits.replace("419430400", "unlimited")
    assert cluster.parse_memory(status, unlimited).limit_bytes is None


def test_memory_of_this_process_is_readable() -> None:
    memory = cluster.memory(os.getpid())
    assert 0 < memory.resident_bytes <= memory.mapped_bytes
