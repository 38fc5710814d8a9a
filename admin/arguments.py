"""Argument types and groups that several verbs share."""

from __future__ import annotations

import argparse
import json
from typing import Any

from placement.peer_calls import PeerTls
from tessera.errors import InvalidArgumentError, SettingsError
from tessera.process_settings import read_file
from tessera.settings import ByteSize, parse_bytes


def byte_size(text: str) -> ByteSize:
    """Parse `256MiB` and the like; for argparse."""
    try:
        return parse_bytes(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def json_object(text: str, place: str) -> dict[str, Any]:
    """Parse a JSON object that stands at `place`.

    Raises:
        InvalidArgumentError: it is not one.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"{place}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{place}: got {text}, expected a JSON object")
    return value


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `-o table|json|yaml`."""
    parser.add_argument(
        "-o", "--output", choices=("table", "json", "yaml"), default="table",
        help="a table for people, JSON or YAML for programs",
    )  # fmt: skip


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add what is needed to reach a cluster's etcd."""
    parser.add_argument(
        "--etcd",
        action="append",
        metavar="HOST:PORT",
        help="etcd endpoint, may be repeated (default: the cluster of a running `tessera up`, else 127.0.0.1:2379)",
    )
    parser.add_argument("--etcd-ca", default="", metavar="FILE", help="CA certificates for etcd; turns TLS on")
    parser.add_argument("--etcd-cert", default="", metavar="FILE", help="client certificate for etcd")
    parser.add_argument("--etcd-key", default="", metavar="FILE", help="private key of --etcd-cert")
    parser.add_argument("--cluster", default="default", help="name of the cluster (default: %(default)s)")


def add_shard_tls(parser: argparse.ArgumentParser) -> None:
    """Add what is needed to call shard servers that speak TLS; `shard_tls` reads it."""
    parser.add_argument(
        "--shard-ca", default="", metavar="FILE", help="CA certificates for shard servers; turns TLS on"
    )
    parser.add_argument("--shard-cert", default="", metavar="FILE", help="client certificate for shard servers")
    parser.add_argument("--shard-key", default="", metavar="FILE", help="private key of --shard-cert")


def shard_tls(options: argparse.Namespace) -> PeerTls:
    """Return what `add_shard_tls` was told, read.

    Raises:
        SettingsError: a file cannot be read, or one is missing beside another.
    """
    return PeerTls(
        ca=read_file(options.shard_ca, "--shard-ca"),
        cert=read_file(options.shard_cert, "--shard-cert"),
        key=read_file(options.shard_key, "--shard-key"),
    )
