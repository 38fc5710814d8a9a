"""A real etcd on free ports of 127.0.0.1, in a temporary directory; never outlives the thread that started it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from admin.processes import bound_to_parent
from protos import etcd_pb2 as pb

START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Certificates:
    """Throw-away PEM files; one certificate serves as etcd's and as the client's."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *, days: int = 1) -> Certificates:
    """Make a CA, and a certificate for 127.0.0.1 signed by it, that hold so long."""
    now = datetime.datetime.now(datetime.UTC)

    def build(name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = build("tessera test CA", None, ca_key)
    ca_certificate = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        ca_key, hashes.SHA256()
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        build("tessera test", ca_certificate.subject, key)
        .add_extension(names, critical=False)
        .add_extension(usages, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificates(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    made.ca.write_bytes(ca_certificate.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdProcess:
    """One etcd; a context manager that starts it, waits until it answers, and kills it."""

    def __init__(self, *, tls: bool = False) -> None:
        self._stack = ExitStack()
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self.certificates: Certificates | None = None
        self.endpoint = ""

    def __enter__(self) -> Self:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-etcd-")))
        self._directory = directory
        if self._tls:
            self.certificates = make_certificates(directory)
        try:
            self._start_on_free_ports()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._stack.close()

    def _start_on_free_ports(self) -> None:
        """Start; a port that somebody else took in between costs another try."""
        for attempt in range(3):
            self._port, self._peer_port = free_port(), free_port()
            self.endpoint = f"127.0.0.1:{self._port}"
            try:
                self.start()
                return
            except RuntimeError:
                if attempt == 2:
                    raise
                self.kill()
                shutil.rmtree(self._directory / "data", ignore_errors=True)

    def start(self) -> None:
        """Start etcd on its ports and data; returns when it answers."""
        binary = shutil.which("etcd")
        assert binary, "etcd is not installed: apt-get install etcd-server"
        client, peer = f"{'https' if self._tls else 'http'}://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        command = [
            binary,
            *("--name", "test", "--data-dir", str(self._directory / "data"), "--initial-cluster", f"test={peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--logger", "zap", "--log-level", "error"),
        ]
        if self.certificates is not None:
            command += ["--cert-file", str(self.certificates.certificate), "--key-file", str(self.certificates.key)]
            command += ["--client-cert-auth", "--trusted-ca-file", str(self.certificates.ca)]
        self._log = self._stack.enter_context((self._directory / "log").open("ab"))
        self._process = subprocess.Popen(bound_to_parent(command), stdout=self._log, stderr=self._log)
        self._wait_until_it_answers()

    def kill(self) -> None:
        """Kill it at once, as a crash would; the data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def pause(self) -> None:
        """Stop the process where it is: connections stay open, nothing is answered."""
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again on the same ports and data."""
        self.kill()
        self.start()

    def compact(self, revision: int) -> None:
        """Forget the history up to `revision`."""
        with self.channel() as channel:
            method = channel.unary_unary(
                "/etcdserverpb.KV/Compact",
                pb.CompactionRequest.SerializeToString,
                pb.CompactionResponse.FromString,
            )
            method(pb.CompactionRequest(revision=revision, physical=True), timeout=5)

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A plain blocking channel, for what the product's store does not offer."""
        if self.certificates is None:
            channel = grpc.insecure_channel(self.endpoint)
        else:
            files = (self.certificates.ca, self.certificates.key, self.certificates.certificate)
            channel = grpc.secure_channel(
                self.endpoint, grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
            )
        try:
            yield channel
        finally:
            channel.close()

    def _wait_until_it_answers(self) -> None:
        assert self._process
        deadline_s = time.monotonic() + START_TIMEOUT_S
        with self.channel() as channel:
            method = channel.unary_unary(
                "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
            )
            while True:
                try:
                    method(pb.RangeRequest(key=b"health"), timeout=1.0)
                    return
                except grpc.RpcError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline_s:
                        log = (self._directory / "log").read_text(errors="replace")[-2000:]
                        raise RuntimeError(f"etcd did not start:\n{log}") from error
                    time.sleep(0.05)
