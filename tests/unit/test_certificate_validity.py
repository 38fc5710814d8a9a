"""When a certificate holds, read by us and by another library."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tessera.certificates import Validity, validity

KEY = ec.generate_private_key(ec.SECP256R1())


def _pem(start: datetime.datetime, end: datetime.datetime, name: str = "tessera", names: int = 0) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if names:
        more = [x509.DNSName(f"{i}.tessera-shard.tessera.svc") for i in range(names)]
        builder = builder.add_extension(x509.SubjectAlternativeName(more), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _at(year: int) -> datetime.datetime:
    return datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


CERTIFICATE = _pem(_at(2026), _at(2027))


# X.509 writes years before 2050 with two digits.
@pytest.mark.parametrize(("start", "end"), [(1999, 2049), (2026, 2027), (2049, 2050), (2051, 2199)])
@pytest.mark.parametrize("names", [0, 1, 300])
def test_start_and_end(start: int, end: int, names: int) -> None:
    found = validity(_pem(_at(start), _at(end), names=names))
    assert found == Validity(_at(start).timestamp(), _at(end).timestamp())


def test_the_first_of_a_chain_counts() -> None:
    chain = b"a comment\n" + CERTIFICATE + _pem(_at(2020), _at(2040), "the CA")
    assert validity(chain) == Validity(_at(2026).timestamp(), _at(2027).timestamp())


@given(st.binary(max_size=100), st.integers(0, 10_000))
def test_a_damaged_one_is_no_failure(garbage: bytes, at: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(CERTIFICATE.decode())
    cut = der[: at % len(der)] + garbage
    found = validity(ssl.DER_cert_to_PEM_cert(cut).encode())
    assert found is None or isinstance(found, Validity)
    assert validity(garbage) is None


@pytest.mark.parametrize(
    "pem", [b"", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_no_certificate(pem: bytes) -> None:
    assert validity(pem) is None
