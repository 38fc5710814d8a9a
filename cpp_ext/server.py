"""Makes the native server of a serving process from its settings."""

from __future__ import annotations

from cpp_ext import _rpc
from tessera.certificates import Certificates
from tessera.process_settings import ProcessSettings


def make_server(listen: str, settings: ProcessSettings, certificates: Certificates) -> _rpc.Server:
    """Return a server that is not started yet."""
    return _rpc.Server(
        address=listen,
        pollers=settings.pollers,
        max_message_bytes=settings.max_message_bytes,
        max_concurrent_calls=settings.max_in_flight,
        default_deadline_s=settings.default_deadline_s,
        tls_certificate=certificates.certificate,
        tls_private_key=certificates.private_key,
        tls_client_ca=certificates.client_ca,
    )


def show_certificates(server: _rpc.Server, certificates: Certificates) -> None:
    """Let `server` show these to whoever connects from now on.

    Raises:
        InvalidArgumentError, FailedPreconditionError: they are wrong, or would turn TLS on or off; nothing has changed.
    """
    server.set_certificates(
        tls_certificate=certificates.certificate,
        tls_private_key=certificates.private_key,
        tls_client_ca=certificates.client_ca,
    )
