"""Chooses how a shard server holds its blobs: where the repository has them, or in a directory of its own."""

from __future__ import annotations

from collections.abc import Callable

from cpp_ext import _rpc
from shard_server.holder import Holder, MountedHolder
from shard_server.holdings import Holdings, MountedFiles
from shard_server.settings import ShardServerSettings
from shard_server.staged_holder import open_staged_holder
from tessera.repository import Repository


def open_holder(
    settings: ShardServerSettings, tables: _rpc.TableStore, capacity_bytes: int, on_change: Callable[[], None]
) -> Holder:
    """Return what the settings ask for; see `open_staged_holder` for `on_change` and errors."""
    if settings.blob_dir:
        return open_staged_holder(settings, tables, capacity_bytes, on_change)
    repository = Repository(settings.repository)
    files = MountedFiles(repository, settings.verify_blobs == "content")
    holdings = Holdings(files, tables, populate=settings.populate)
    return MountedHolder(settings.server_id, holdings, capacity_bytes, repository)
