"""gRPC's channel arguments in the form of `--grpc_channel_arguments`."""

from __future__ import annotations

from tessera.errors import SettingsError

INTEGERS = frozenset(
    f"grpc.{name}"
    for name in (
        "http2.bdp_probe",
        "http2.hpack_table_size.decoder",
        "http2.hpack_table_size.encoder",
        "http2.lookahead_bytes",
        "http2.max_frame_size",
        "http2.max_ping_strikes",
        "http2.max_pings_without_data",
        "http2.min_ping_interval_without_data_ms",
        "http2.min_recv_ping_interval_without_data_ms",
        "http2.min_time_between_pings_ms",
        "http2.write_buffer_size",
        "keepalive_permit_without_calls",
        "keepalive_time_ms",
        "keepalive_timeout_ms",
        "max_concurrent_streams",
        "max_connection_age_grace_ms",
        "max_connection_age_ms",
        "max_connection_idle_ms",
        "max_metadata_size",
        "max_receive_message_length",
        "max_send_message_length",
        "server_handshake_timeout_ms",
        "so_reuseport",
        "tcp_read_chunk_size",
    )
)
"""The arguments of a server that gRPC wants as integers, and would ignore as text."""


def parse_channel_arguments(text: str, flag: str = "--grpc_channel_arguments") -> dict[str, int | str]:
    """Return the arguments in `text`, "name=value,name=value"; a value that is a 32-bit integer becomes one.

    gRPC ignores names that it does not know, so they are not refused here either.

    Raises:
        SettingsError: an entry without a name or without "=", a name twice, or a text where gRPC needs an integer;
            names `flag` and the entry.
    """
    arguments: dict[str, int | str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = (part.strip() for part in entry.partition("="))
        if not separator or not name:
            raise SettingsError(f"{flag}: got {entry!r}, expected name=value")
        if name in arguments:
            raise SettingsError(f"{flag}: {name} is given twice")
        arguments[name] = _integer(value)
        if name in INTEGERS and isinstance(arguments[name], str):
            raise SettingsError(f"{flag}: {name}: got {value!r}, expected a 32-bit integer")
    return arguments


def _integer(text: str) -> int | str:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return text
    return int(text) if -(1 << 31) <= int(text) < 1 << 31 else text
