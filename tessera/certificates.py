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
