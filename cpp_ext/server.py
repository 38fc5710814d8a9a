"""Makes the native server of a serving process from its settings."""

from __future__ import annotations

from cpp_ext import _rpc
from tessera.process_settings import ProcessSettings


def make_server(listen: str, settings: ProcessSettings) -> _rpc.Server:
    """Return a server that is not started yet.

    Raises:
        SettingsError: a certificate file cannot be read; names its flag.
    """
    return _rpc.Server(
        address=listen,
        pollers=settings.pollers,
        max_message_bytes=settings.max_message_bytes,
        max_concurrent_calls=settings.max_in_flight,
        default_deadline_s=settings.default_deadline_s,
        tls_certificate=settings.read_file("tls_cert"),
        tls_private_key=settings.read_file("tls_key"),
        tls_client_ca=settings.read_file("tls_client_ca"),
    )
