"""Certificates of a server, which are replaced on disk while it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from tessera.errors import TesseraError

_log = logging.getLogger("tessera.certificates")


@dataclass(frozen=True)
class Certificates:
    """PEM texts: a certificate turns TLS on, a client CA also demands certificates of callers."""

    certificate: bytes = b""
    private_key: bytes = b""
    client_ca: bytes = b""


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate holds, in seconds since 1970."""

    start_s: float
    end_s: float


def validity(pem: bytes) -> Validity | None:
    """Return when the first certificate of a PEM text holds; None if there is none, or it cannot be read."""
    if not pem:
        return None
    from cryptography import x509  # here: only who speaks TLS and is asked for metrics needs it

    try:
        found = x509.load_pem_x509_certificate(pem)
        return Validity(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())
    except (ValueError, x509.InvalidVersion):
        return None


CertificateSource = Callable[[], Certificates]
"""Reads them; raises TesseraError if they cannot be read. Blocks."""


async def follow_certificates(
    read: CertificateSource, show: Callable[[Certificates], None], current: Certificates, *, poll_s: float
) -> None:
    """Call `show` with what `read` returns whenever that has changed, until cancelled. Wrong ones change nothing.

    Files are replaced one after the other, so that a key may for a moment not be its certificate's: what is wrong is
    told once, and looked at again. Contents are compared, which is surer than times and inode numbers.

    Args:
        read: is called on a helper thread.
        show: raises TesseraError if they are wrong.
        current: what is shown now; without a certificate there is nothing to follow.
        poll_s: time between two looks; 0: never.
    """
    told = ""
    while poll_s > 0 and current.certificate:
        await asyncio.sleep(poll_s)
        problem = ""
        try:
            found = await asyncio.to_thread(read)
            if found != current:
                show(found)
                current = found
                _log.info("new certificates are shown to those who connect from now on")
        except TesseraError as error:
            problem = error.message
        if problem and problem != told:
            _log.error("certificates: %s; those that were there are shown further on", problem)
        told = problem
