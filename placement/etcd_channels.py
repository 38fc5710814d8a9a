"""Connections to the members of an etcd cluster: one channel each, fail-over between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from tessera.errors import InvalidArgumentError, UnavailableError

_log = logging.getLogger("placement.etcd")

MAX_MESSAGE_BYTES = 64 << 20
_ENDPOINT = re.compile(r"(?:(https?)://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})/?")

# A peer that stops answering is noticed within 10 s + 4 s. Without http2.ping_timeout_ms grpcio takes 60 s, whatever
# keepalive_timeout_ms says. etcd refuses pings more often than every 5 s.
_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Tls:
    """PEM texts: the CA that etcd's certificate is checked against, and optionally our own certificate with its key."""

    ca: bytes
    certificate: bytes = b""
    private_key: bytes = b""

    def __post_init__(self) -> None:
        if not self.ca:
            raise InvalidArgumentError("etcd CA: got nothing, expected a PEM text")
        if bool(self.certificate) != bool(self.private_key):
            raise InvalidArgumentError("etcd client certificate: expected certificate and private key together")


def parse_endpoint(text: str, *, tls: bool) -> str:
    """Return `text` as host:port.

    Raises:
        InvalidArgumentError: it is not host:port, http://host:port or https://host:port, or its scheme does not fit
        `tls`.
    """
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise InvalidArgumentError(f"etcd endpoint: got {text!r}, expected host:port")
    if match[1] not in (None, "https" if tls else "http"):
        raise InvalidArgumentError(
            f"etcd endpoint: got {text!r}, but TLS is {'on' if tls else 'off (give the CA to turn it on)'}"
        )
    return f"{match[2]}:{match[3]}"


class Channels:
    """The channels of all endpoints, and which of them is in use."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None) -> None:
        if not endpoints:
            raise InvalidArgumentError("etcd endpoints: got none, expected at least one host:port")
        self.endpoints = [parse_endpoint(endpoint, tls=tls is not None) for endpoint in endpoints]
        self._tls = tls
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._position = 0
        self._closed = False

    @property
    def endpoint(self) -> str:
        """The endpoint in use, for messages."""
        return self.endpoints[self._position]

    def leave(self, endpoint: str) -> None:
        """Use the next endpoint from now on, unless `endpoint` was left before."""
        if self.endpoint == endpoint and len(self.endpoints) > 1:
            self._position = (self._position + 1) % len(self.endpoints)
            _log.warning("etcd %s does not answer; trying %s", endpoint, self.endpoint)

    async def ready(self, timeout_s: float) -> grpc.aio.Channel:
        """Return the channel of an endpoint that accepts connections; nothing has been sent when this fails.

        Raises:
            UnavailableError: none does, within `timeout_s` altogether; names all.
        """
        if self._closed:
            raise UnavailableError("etcd: the store is closed")
        count = len(self.endpoints)
        for _ in range(count):
            endpoint, channel = self.endpoint, self._channel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s / count):
                    if await _connected(channel):
                        return channel
            self.leave(endpoint)
        raise UnavailableError(f"etcd: no connection to {', '.join(self.endpoints)} within {timeout_s:g} s")

    async def close(self) -> None:
        """Close all channels. May be called twice."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    def _channel(self) -> grpc.aio.Channel:
        if self._position not in self._channels:
            self._channels[self._position] = self._open(self.endpoint)
        return self._channels[self._position]

    def _open(self, endpoint: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            self._tls.ca, self._tls.private_key or None, self._tls.certificate or None
        )
        return grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)


async def _connected(channel: grpc.aio.Channel) -> bool:
    """Wait until `channel` is connected (True) or has failed to (False)."""
    state = channel.get_state(try_to_connect=True)
    tried = False
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.SHUTDOWN or (
            tried and state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        ):
            return False
        tried = tried or state is grpc.ChannelConnectivity.CONNECTING
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True
