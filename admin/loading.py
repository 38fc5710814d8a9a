"""Gives models their first placement: what `tessera model load` and `tessera up` share."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from placement.keys import Keys
from placement.operation import LoadResult, SlotBytes, load_model, plan_load
from placement.plan import Plan, slot_bytes
from placement.records import PackageRef
from placement.store import Store
from placement.traffic import check_label
from tessera.errors import InvalidArgumentError, NotFoundError
from tessera.repository import Repository


def wanted_models(repository: Repository, selectors: Sequence[str]) -> dict[str, list[int]]:
    """Return model → versions for `NAME` (its latest version) and `NAME:VERSION,VERSION`; no selector: all models.

    Raises:
        NotFoundError: the repository has no such package, or none at all.
        InvalidArgumentError: a selector is malformed; names it.
    """
    if not repository.root.is_dir():
        raise NotFoundError(f"repository {repository.root}: no such directory")
    if not selectors:
        models = {name: [repository.versions(name)[-1]] for name in repository.models()}
        if not models:
            raise NotFoundError(f"repository {repository.root}: holds no packages; make one with `tessera partition`")
        return models
    wanted: dict[str, list[int]] = {}
    for selector in selectors:
        name, separator, numbers = selector.partition(":")
        known = repository.versions(name)
        try:
            versions = sorted({int(number) for number in numbers.split(",")}) if separator else known[-1:]
        except ValueError:
            raise InvalidArgumentError(f"model: got {selector!r}, expected NAME or NAME:VERSION,VERSION") from None
        missing = [version for version in versions if version not in known]
        if not versions or missing:
            there = [str(version) for version in known] or repository.models()
            what = f"version {missing[0]} of model {name}" if missing and known else f"model {name}"
            raise NotFoundError(f"repository {repository.root}: has no {what}; it has {', '.join(there) or 'none'}")
        if name in wanted:
            raise InvalidArgumentError(f"model {name}: named twice; expected one NAME:VERSION,VERSION for it")
        wanted[name] = versions
    return wanted


def parse_label(text: str, versions: Sequence[int], *, place: str = "--label") -> tuple[str, int]:
    """Parse LABEL=VERSION that stands at `place`.

    Raises:
        InvalidArgumentError: it is malformed, or the version is not one of `versions`.
    """
    label, separator, version = text.partition("=")
    if not (label and separator and version.isdecimal() and int(version) in versions):
        raise InvalidArgumentError(
            f"{place}: got {text!r}, expected LABEL=VERSION with one of the versions {list(versions)}"
        )
    check_label(label)
    return label, int(version)


def owner() -> str:
    """Return who this command acts for, for locks and records."""
    return f"{_user()}@{socket.gethostname()}:{os.getpid()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in a container
        return str(os.getuid())


@dataclass(frozen=True)
class _Wanted:
    versions: Sequence[PackageRef]
    slot_bytes: SlotBytes


async def _wanted(
    repository: Repository, model: str, versions: Sequence[int], labels: Mapping[str, int] | None
) -> _Wanted:
    manifests = [await asyncio.to_thread(repository.read_manifest, model, version) for version in versions]
    by_label = labels or {}
    references = [
        PackageRef(m.version, m.digest, tuple(sorted(label for label, v in by_label.items() if v == m.version)))
        for m in manifests
    ]
    return _Wanted(references, lambda slots: slot_bytes(manifests, slots))


async def plan(
    store: Store,
    cluster: str,
    repository: Repository,
    model: str,
    versions: Sequence[int],
    *,
    replicas: int,
    labels: Mapping[str, int] | None = None,
) -> Plan | None:
    """Return what `load` would do now, None if nothing; changes nothing.

    Raises:
        NotFoundError, DataLossError: a package is missing or damaged.
        FailedPreconditionError, UnavailableError: see `placement.operation.plan_load`.
    """
    wanted = await _wanted(repository, model, versions, labels)
    return await plan_load(
        store, Keys(cluster), model=model, versions=wanted.versions, slot_bytes=wanted.slot_bytes, replicas=replicas
    )


async def load(
    store: Store,
    cluster: str,
    repository: Repository,
    model: str,
    versions: Sequence[int],
    *,
    replicas: int,
    timeout_s: float,
    labels: Mapping[str, int] | None = None,
    min_servers: int = 1,
    say: Callable[[str], None] | None = None,
) -> LoadResult:
    """Place `versions` of `model` on the cluster's servers and make that current; returns when it is.

    Raises:
        NotFoundError, DataLossError: a package is missing or damaged.
        FailedPreconditionError, DeadlineExceededError, UnavailableError: see `placement.operation.load_model`.
    """
    wanted = await _wanted(repository, model, versions, labels)
    return await load_model(
        store,
        Keys(cluster),
        model=model,
        versions=wanted.versions,
        slot_bytes=wanted.slot_bytes,
        replicas=replicas,
        owner=owner(),
        timeout_s=timeout_s,
        min_servers=min_servers,
        progress=say,
    )
