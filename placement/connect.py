"""Opens the store that settings name."""

from __future__ import annotations

from dataclasses import dataclass

from placement.etcd_store import EtcdStore
from tessera.errors import SettingsError
from tessera.process_settings import ProcessSettings, read_file


@dataclass(frozen=True)
class EtcdSettings:
    """How to reach etcd; file names may be empty, and `ca` turns TLS on."""

    endpoints: tuple[str, ...]
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be ignored without saying so.

        Raises:
            SettingsError: half of certificate and key, or both without `ca`.
        """
        if bool(self.cert) != bool(self.key):
            raise SettingsError("--etcd-cert and --etcd-key: got one of them, expected both or neither")
        if self.cert and not self.ca:
            raise SettingsError("--etcd-ca must be given with --etcd-cert")


def open_etcd(settings: EtcdSettings) -> EtcdStore:
    """Return a store; it connects when it is first used. The caller closes it.

    Raises:
        SettingsError: a certificate file cannot be read; names it.
    """
    return EtcdStore(
        settings.endpoints,
        ca=read_file(settings.ca, "--etcd-ca"),
        cert=read_file(settings.cert, "--etcd-cert"),
        key=read_file(settings.key, "--etcd-key"),
    )


def connect(settings: ProcessSettings) -> EtcdStore:
    """Return the store of a serving process; see `open_etcd`."""
    return open_etcd(EtcdSettings(settings.etcd, settings.etcd_ca, settings.etcd_cert, settings.etcd_key))
