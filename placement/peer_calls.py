"""Calls of shard servers from outside of the data path: unary, with serialized messages, over gRPC for Python."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from tessera.errors import SettingsError, error_class

MAX_ANSWER_BYTES = 256 << 20
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class PeerTls:
    """PEM texts for TLS to shard servers; without `ca` there is none."""

    ca: bytes = b""
    cert: bytes = b""
    key: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what would be ignored without saying so.

        Raises:
            SettingsError: half of certificate and key, or both without the CA.
        """
        if bool(self.cert) != bool(self.key):
            raise SettingsError("client certificate and key for shard servers: got one of them, expected both or none")
        if self.cert and not self.ca:
            raise SettingsError("client certificate for shard servers: got it without the CA certificates")


async def call(address: str, method: str, request: bytes, tls: PeerTls, timeout_s: float = TIMEOUT_S) -> bytes:
    """Make one call on a connection of its own.

    Raises:
        TesseraError: of the class of the call's status code, with the address and the server's text.
    """
    options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES), ("grpc.enable_http_proxy", 0)]
    if tls.ca:
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key or None, tls.cert or None)
        channel = grpc.aio.secure_channel(address, credentials, options)
    else:
        channel = grpc.aio.insecure_channel(address, options)
    async with channel:
        stub: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            return await stub(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_class(error.code().value[0])(
                f"shard server {address}: {error.code().name}: {error.details()}"
            ) from None
