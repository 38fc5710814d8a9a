"""The platforms that are installed: entry points of the group `tessera.platforms`, each a class without arguments."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from router.platforms.base import Platform
from tessera.errors import FailedPreconditionError, InvalidArgumentError

GROUP = "tessera.platforms"
DEFAULT = "tensorflow"


class _Platforms(Mapping[str, Platform]):
    """Name → platform. Each is imported when it is asked for, since that may take long: it brings a runtime with it."""

    def __init__(self, entries: Iterable[EntryPoint]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._made: dict[str, Platform] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Platform:
        with self._lock:
            if name not in self._made:
                self._made[name] = _make(self._entries[name])
            return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _make(entry: EntryPoint) -> Platform:
    try:
        platform: Platform = entry.load()()
    except Exception as error:
        # Whatever a package does when it is imported must not end the server.
        raise FailedPreconditionError(
            f"platform {entry.name} is installed, but {type(error).__name__}: {error}"
        ) from error
    return platform


_platforms: _Platforms | None = None


def platforms() -> Mapping[str, Platform]:
    """Return what is installed: name → platform, imported when it is first looked up.

    The look-up raises FailedPreconditionError, with the reason, for a platform that cannot be imported.
    """
    global _platforms
    if _platforms is None:
        _platforms = _Platforms(entry_points(group=GROUP))
    return _platforms


def find_platform(model: str, name: str, installed: Mapping[str, Platform] | None = None) -> Platform:
    """Return the platform that `model` asks for, among `installed` (by default: all that are).

    Raises:
        InvalidArgumentError: there is none of that name, or it cannot be imported; TensorFlow Serving's text, and why.
    """
    known = platforms() if installed is None else installed
    unsupported = f"Model {model} requests unsupported platform {name}"
    if name not in set(known):  # `in known` would import it
        raise InvalidArgumentError(f"{unsupported}; expected one of {', '.join(sorted(known))}")
    try:
        return known[name]
    except FailedPreconditionError as error:
        raise InvalidArgumentError(f"{unsupported}: {error.message}") from error
