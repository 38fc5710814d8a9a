"""Who gets a model's requests: its labels and the split of its traffic. Pure.

Both stand in the pointer (`CurrentRecord`), so that they change without a new placement, and together with one: what a
request may name, and what it then gets, never contradict each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from placement.found import Found
from placement.records import WHOLE, CurrentRecord, OperationRecord, PackageRef, Placement, TrafficRecord
from placement.snapshot import ModelView
from tessera.errors import InvalidArgumentError


def versions_of(view: ModelView) -> tuple[PackageRef, ...]:
    """Return what is served, with the labels that count; nothing before the first placement and after an unload."""
    if view.placement is None:
        return ()
    return served_versions(view.current, view.placement)


def traffic_of(view: ModelView) -> TrafficRecord:
    """Return how the model's requests are divided; shares of versions that are not served stay as they are."""
    return view.current.traffic if view.current is not None else TrafficRecord()


def served_versions(current: CurrentRecord | None, placement: Placement) -> tuple[PackageRef, ...]:
    """Return the versions of `placement` with the labels of the pointer, if that is about the same packages."""
    if current is not None and same_packages(current.versions, placement.versions):
        return current.versions
    return placement.versions  # the pointer has not been heard of yet: the document's labels are the best there is


def after_commit(found: Found, operation: OperationRecord, target: Placement) -> CurrentRecord:
    """Return the pointer that makes `target` current: labels and split stay, unless the versions change."""
    current = found.current
    assert current is not None
    made = replace(
        current,
        generation=found.generation,
        epoch=target.epoch,
        digest=target.digest,
        operation=operation.id,
    )
    if same_packages(current.versions, target.versions):
        return made
    return replace(made, versions=target.versions, traffic=operation.traffic)


def same_packages(some: Sequence[PackageRef], others: Sequence[PackageRef]) -> bool:
    """Return whether these are the same versions of the same content, whatever their labels."""
    return [(one.version, one.digest) for one in some] == [(other.version, other.digest) for other in others]


def relabelled(
    versions: Sequence[PackageRef], labels: Mapping[str, int], removed: Collection[str] = ()
) -> tuple[PackageRef, ...]:
    """Return `versions` with the `labels` (label → version) given and those in `removed` taken away.

    Raises:
        InvalidArgumentError: a label cannot be one, stands for a version that is not served, or is both given and
        removed; a label that is to be removed is not there.
    """
    served = [reference.version for reference in versions]
    stands_for = {label: reference.version for reference in versions for label in reference.labels}
    for label, version in labels.items():
        check_label(label)
        if version not in served:
            raise InvalidArgumentError(f"label {label}: got version {version}, expected one that is served: {served}")
        if label in removed:
            raise InvalidArgumentError(f"label {label}: is both given and removed")
    for label in removed:
        if label not in stands_for:
            there = ", ".join(sorted(stands_for)) or "none"
            raise InvalidArgumentError(f"label {label}: is not there, expected one of: {there}")
    stands_for = {label: version for label, version in stands_for.items() if label not in removed} | dict(labels)
    return tuple(
        replace(one, labels=tuple(sorted(label for label, version in stands_for.items() if version == one.version)))
        for one in versions
    )


def check_label(label: str) -> None:
    """Refuse what cannot be told from a version, or is none.

    Raises:
        InvalidArgumentError: says what was expected.
    """
    if not label or label.isdecimal() or not label.isprintable() or len(label) > 128 or set(label) & set("=, "):
        raise InvalidArgumentError(
            f"label: got {label!r}, expected 1 to 128 printable characters that are no number, without = , or blanks"
        )


def check_traffic(traffic: TrafficRecord, versions: Sequence[PackageRef]) -> None:
    """Check that each share is of something that is served.

    Raises:
        InvalidArgumentError: names the share and what there is.
    """
    known = _names(versions)
    for name in traffic.shares:
        if name not in known:
            raise InvalidArgumentError(f"split: got a share for {name}, expected one of: {', '.join(sorted(known))}")


def without_gone(traffic: TrafficRecord, versions: Sequence[PackageRef]) -> TrafficRecord:
    """Return the split for `versions`: shares of what is not among them go to the others, in proportion to theirs.

    It ends when fewer than two shares are left.
    """
    known = _names(versions)
    left = {name: share for name, share in traffic.shares.items() if name in known}
    if len(left) == len(traffic.shares):
        return traffic
    if len(left) < 2:
        return TrafficRecord()
    total = sum(left.values())
    shares = {name: max(1, share * WHOLE // total) for name, share in left.items()}
    largest = max(shares, key=lambda name: (shares[name], name))
    shares[largest] += WHOLE - sum(shares.values())
    return TrafficRecord(shares, traffic.sticky_header)


def _names(versions: Sequence[PackageRef]) -> set[str]:
    return {name for one in versions for name in (str(one.version), *one.labels)}
