"""Blobs and sources of blobs in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tessera.errors import NotFoundError, TesseraError


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blobs_of(*contents: bytes) -> dict[str, bytes]:
    return {digest_of(content): content for content in contents}


def sizes_of(blobs: Mapping[str, bytes]) -> dict[str, int]:
    return {digest: len(content) for digest, content in blobs.items()}


def put(root: Path, blobs: Mapping[str, bytes]) -> None:
    """Write blobs where a repository, or a blob directory, has them."""
    for digest, content in blobs.items():
        path = root / "blobs" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass
class FakeSource:
    """Gives `blobs`; remembers what was asked for.

    Attributes:
        before: is called before each answer with (digest, offset); may raise or wait.
    """

    name: str
    blobs: Mapping[str, bytes]
    before: Callable[[str, int], None] = lambda digest, offset: None
    asked: list[tuple[str, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, digest: str, offset: int, length: int) -> bytes:
        with self._lock:
            self.asked.append((digest, offset))
        self.before(digest, offset)
        if digest not in self.blobs:
            raise NotFoundError(f"{self.name}: blob {digest}: is not there")
        return self.blobs[digest][offset : offset + length]


def failing(error: TesseraError) -> Callable[[str, int], None]:
    """Return what makes a FakeSource raise `error`."""

    def fail(digest: str, offset: int) -> None:
        raise error

    return fail
