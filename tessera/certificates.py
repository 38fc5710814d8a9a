"""Certificates of a server, which are replaced on disk while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

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
    begin, end = (f"-----{word} CERTIFICATE-----" for word in ("BEGIN", "END"))
    text = pem.decode("ascii", "replace")
    try:
        first = text[text.index(begin) : text.index(end) + len(end)]
        der = ssl.PEM_cert_to_DER_cert(first)
        _, at, _ = _element(der, 0)  # the certificate
        _, at, _ = _element(der, at)  # what is signed
        tag, _, after = _element(der, at)
        at = after if tag == _VERSION else at
        for _ in ("serial number", "algorithm", "issuer"):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at)
        start_tag, start, at = _element(der, at)
        end_tag, last, after = _element(der, at)
        return Validity(_time_s(start_tag, der[start:at]), _time_s(end_tag, der[last:after]))
    except (ValueError, IndexError):
        return None


_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
"""Tags of X.509's encoding (DER)."""


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at `at`, where its content begins, and where it ends."""
    tag, size, start = der[at], der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, start = int.from_bytes(der[start : start + count], "big"), start + count
    if start + size > len(der):
        raise ValueError(f"an element of {size} bytes at {at}, expected at most {len(der) - start}")
    return tag, start, start + size


def _time_s(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year
        text = f"{'20' if text < '5' else '19'}{text}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#x}, expected a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


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
