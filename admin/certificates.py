"""How long certificates that servers show are still valid."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

_TIMEOUT_S = 5.0
_DAY_S = 86_400.0


@dataclass(frozen=True)
class TlsFiles:
    """What is needed to reach a server that speaks TLS; `cert` and `key` may be empty."""

    ca: str
    cert: str = ""
    key: str = ""


async def expiring(addresses: Mapping[str, TlsFiles], *, now_s: float, days: float) -> list[str]:
    """Return what is wrong with the certificates at `addresses`, asked side by side.

    Args:
        addresses: host:port → how to reach it.
        now_s: seconds since 1970.
        days: a certificate should be valid for at least that long.
    """
    ordered = sorted(addresses.items())
    found = await asyncio.gather(*(asyncio.to_thread(_valid_until_s, *one) for one in ordered))
    problems = []
    for (address, _), until in zip(ordered, found, strict=True):
        if isinstance(until, str):
            problems.append(f"{address}: {until}")
        elif until - now_s < days * _DAY_S:
            problems.append(f"{address}: its certificate ends in {(until - now_s) / _DAY_S:.1f} days")
    return problems


def _valid_until_s(address: str, files: TlsFiles) -> float | str:
    """Return the end of the validity of the certificate that is shown at `address`, or why it is not known."""
    host, _, port = address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=files.ca)
        if files.cert:
            context.load_cert_chain(files.cert, files.key)
        context.set_alpn_protocols(["h2"])
        bare = host.strip("[]")
        with (
            socket.create_connection((bare, int(port)), timeout=_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=bare) as secured,
        ):
            shown = secured.getpeercert()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except (OSError, ValueError) as error:
        return f"cannot be asked for its certificate: {error}"
    return ssl.cert_time_to_seconds(str(shown["notAfter"])) if shown else "shows no certificate"
