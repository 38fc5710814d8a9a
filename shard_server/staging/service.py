"""Answers peers that fetch blobs: on a thread of its own, so that lookups never wait for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError

from protos import data_plane_pb2 as pb
from shard_server.staging.rate_limit import RateLimit
from tessera.errors import DataLossError, InvalidArgumentError, NotFoundError
from tessera.priority import lower_disk_priority, lower_priority

CHUNK_BYTES = 1 << 20
"""What is sent at once: few enough that a lookup's answer never waits long behind it on the connection's thread."""

STAGING_NICE = 10
"""Staging stands back for lookups, but must not starve while it holds what the rest of Python waits for."""


def stand_back() -> None:
    """Lower the priority of the calling thread for processor and disk."""
    lower_priority("staging", STAGING_NICE)
    lower_disk_priority("staging")


class BlobService:
    """`BlobService` of protos/data_plane.proto. `read` is called on one thread."""

    def __init__(self, path_of: Callable[[str], Path | None], limit: RateLimit, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Serve blobs for which `path_of` returns a file, verified, at most as fast as `limit` allows."""
        self._path_of, self._limit, self._chunk_bytes = path_of, limit, chunk_bytes
        self._thread = 0

    def read(self, request_bytes: bytes) -> bytes:
        """Return bytes of a blob.

        Raises:
            InvalidArgumentError: not a ReadBlobRequest; names the field.
            NotFoundError: the blob is not here.
            DataLossError: its file cannot be read.
        """
        if threading.get_ident() != self._thread:
            self._thread = threading.get_ident()
            stand_back()
        request = _parse(request_bytes)
        digest = request.digest.hex()
        path = self._path_of(digest)
        if path is None:
            raise NotFoundError(f"blob {digest}: is not on this server")
        length = min(request.length, self._chunk_bytes)
        time.sleep(self._limit.reserve(length))  # less than a second: see ShardServerSettings.staging_bytes_per_s
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(file, length, request.offset)
            finally:
                os.close(file)
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest}: is no longer on this server") from error
        except OSError as error:
            raise DataLossError(f"blob {digest}: cannot be read: {error.strerror}") from error


def _parse(request_bytes: bytes) -> pb.ReadBlobRequest:
    request = pb.ReadBlobRequest()
    try:
        request.ParseFromString(request_bytes)
    except DecodeError as error:
        raise InvalidArgumentError(f"ReadBlobRequest: cannot be parsed: {error}") from error
    if len(request.digest) != 32:
        raise InvalidArgumentError(f"digest: got {len(request.digest)} bytes, expected 32")
    if request.length < 1:
        raise InvalidArgumentError("length: got 0, expected at least 1")
    if request.offset >= 1 << 63:
        raise InvalidArgumentError(f"offset: got {request.offset}, expected less than 2**63")
    return request
