"""Other shard servers as sources of blobs, over `/tessera.data.v1.BlobService/Read` (docs/formats/wire.md)."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import grpc

from protos import data_plane_pb2 as pb
from tessera.errors import DeadlineExceededError, error_class

READ_BLOB = "/tessera.data.v1.BlobService/Read"
READ_TIMEOUT_S = 30.0
_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # without it grpcio takes 60 s, whatever keepalive_timeout_ms says
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class PeerTls:
    """PEM texts: the CA that peers' certificates are checked against, and what is shown to peers that ask for it."""

    ca: bytes
    certificate: bytes = b""
    private_key: bytes = b""


class Peer:
    """One other server."""

    def __init__(self, server_id: str, address: str, channel: grpc.Channel) -> None:
        """`channel` leads to `address`."""
        self.name = f"server {server_id} ({address})"
        self._read: Any = channel.unary_unary(READ_BLOB)  # without serializers it takes and gives bytes

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        request = pb.ReadBlobRequest(digest=bytes.fromhex(digest), offset=offset, length=length)
        try:
            return bytes(self._read(request.SerializeToString(), timeout=READ_TIMEOUT_S))
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceededError(f"{self.name}: no answer within {READ_TIMEOUT_S:g} s") from error
            raise error_class(code.value[0])(f"{self.name}: {details}") from error


class Peers:
    """The channels to other servers: one an address, closed when it is no longer among those in use. Thread-safe."""

    def __init__(self, tls: PeerTls | None, chunk_bytes: int) -> None:
        """`tls` None: without TLS. Answers have at most `chunk_bytes`."""
        self._tls = tls
        self._options = [*_OPTIONS, ("grpc.max_receive_message_length", chunk_bytes + 1024)]
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()

    def peer(self, server_id: str, address: str) -> Peer:
        """Return the server at `address`."""
        with self._lock:
            if address not in self._channels:
                self._channels[address] = self._open(address)
            return Peer(server_id, address, self._channels[address])

    def keep_only(self, addresses: Collection[str]) -> None:
        """Close the channels to all other addresses; calls on them end with CANCELLED."""
        with self._lock:
            gone = [address for address in self._channels if address not in addresses]
            channels = [self._channels.pop(address) for address in gone]
        for channel in channels:
            channel.close()

    def _open(self, address: str) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(address, options=self._options)
        credentials = grpc.ssl_channel_credentials(
            self._tls.ca, self._tls.private_key or None, self._tls.certificate or None
        )
        return grpc.secure_channel(address, credentials, options=self._options)
