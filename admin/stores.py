"""Reaches a cluster's store from the command line."""

from __future__ import annotations

import argparse

from admin.discovery import running_cluster
from placement.connect import EtcdSettings, open_etcd
from placement.store import Store
from tessera.errors import FailedPreconditionError


def open_store(options: argparse.Namespace) -> Store:
    """Return the store that `options` (of `admin.arguments.add_cluster`) name; the caller closes it.

    Without `--etcd` that is the one of the running `tessera up`, or else 127.0.0.1:2379.

    Raises:
        FailedPreconditionError: the running cluster keeps its records in its own memory.
        SettingsError: a certificate file cannot be read.
    """
    endpoints = [part for text in options.etcd or () for part in text.split(",") if part]  # as the processes take them
    if not endpoints:
        running = running_cluster(options.cluster)
        if running is not None and not running["etcd"]:
            raise FailedPreconditionError(
                f"cluster {options.cluster!r} runs --in-process: its records are in its own memory, not in etcd"
            )
        endpoints = [running["etcd"] if running else "127.0.0.1:2379"]
    return open_etcd(EtcdSettings(tuple(endpoints), options.etcd_ca, options.etcd_cert, options.etcd_key))
