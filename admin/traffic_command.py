"""`tessera model label` and `split`: which version a label stands for, and how requests without a version are divided.

Both take effect at once, with one write, and move no data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output
from admin.loading import owner, parse_label
from admin.output import show
from admin.progress import say
from placement.audit import write_audited
from placement.found import Found, Reader
from placement.keys import Keys
from placement.records import WHOLE, CurrentRecord, PackageRef, TrafficRecord
from placement.store import Compare, Put, Store
from placement.traffic import check_traffic, relabelled
from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError


def add_to(model_verbs: Any) -> None:
    """Add the verbs below `tessera model`."""
    label = model_verbs.add_parser(
        "label", help="say which version a label stands for", description="Moves labels between versions that serve."
    )
    label.add_argument("model", metavar="MODEL", help="name of the model")
    label.add_argument("labels", nargs="*", metavar="LABEL=VERSION", help="labels to set or move")
    label.add_argument("--remove", action="append", default=[], metavar="LABEL", help="a label to take away")
    split = model_verbs.add_parser(
        "split",
        help="divide requests that name no version",
        description="Divides requests that name neither version nor label. Without a split the largest version gets "
        "all of them. A client stays with a version while the percentages stay.",
    )
    split.add_argument("model", metavar="MODEL", help="name of the model")
    split.add_argument(
        "shares", nargs="*", metavar="VERSION=PERCENT", help="a version or label and its percentage; together 100"
    )
    split.add_argument(
        "--sticky-header", default="", metavar="NAME",
        help="metadata key or HTTP header that tells clients apart (default: the request's client_id, else chance)",
    )  # fmt: skip
    split.add_argument("--remove", action="store_true", help="end the split")
    for parser, function in ((label, _label), (split, _split)):
        parser.add_argument("--dry-run", action="store_true", help="say what would change and change nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        add_cluster(parser)
        add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


def parse_shares(texts: Sequence[str], sticky_header: str) -> TrafficRecord:
    """Parse `2=10` and `stable=87.5`, which together make 100.

    Raises:
        InvalidArgumentError: names what is wrong.
    """
    shares: dict[str, int] = {}
    for text in texts:
        name, separator, percent = text.partition("=")
        name = str(int(name)) if name.isdecimal() else name
        try:
            share = Decimal(percent.removesuffix("%")) * WHOLE / 100
        except InvalidOperation:
            share = Decimal(-1)
        if not (name and separator and share.is_finite() and 0 < share <= WHOLE and share == int(share)):
            raise InvalidArgumentError(
                f"split: got {text!r}, expected VERSION=PERCENT or LABEL=PERCENT, above 0, with at most two decimals"
            )
        if name in shares:
            raise InvalidArgumentError(f"split: got {name} twice, expected one share of each")
        shares[name] = int(share)
    if sum(shares.values()) != WHOLE:
        raise InvalidArgumentError(f"split: the shares sum up to {sum(shares.values()) / 100:g}, expected 100")
    return TrafficRecord(shares, sticky_header.lower())


async def _label(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    found, current = await _current(store, keys, options.model)
    served = [reference.version for reference in current.versions]
    labels = dict(parse_label(text, served, place="LABEL=VERSION") for text in options.labels)
    if not labels and not options.remove:
        raise InvalidArgumentError("expected LABEL=VERSION or --remove=LABEL")
    changed = replace(current, versions=relabelled(current.versions, labels, options.remove))
    if gone := [name for name in current.traffic.shares if not name.isdecimal() and name in options.remove]:
        raise FailedPreconditionError(
            f"model {options.model}: the split names label {gone[0]}; `tessera model split` changes that first"
        )
    words = [f"{label}={version}" for label, version in labels.items()]
    words += [f"--remove={label}" for label in options.remove]
    await _write(options, store, keys, found, changed, f"model label {options.model} {' '.join(words)}")


async def _split(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    if options.remove == bool(options.shares):
        raise InvalidArgumentError("expected VERSION=PERCENT … or --remove, one of the two")
    found, current = await _current(store, keys, options.model)
    traffic = TrafficRecord() if options.remove else parse_shares(options.shares, options.sticky_header)
    check_traffic(traffic, current.versions)
    words = "--remove" if options.remove else " ".join(options.shares)
    sticky = f" --sticky-header={traffic.sticky_header}" if traffic.sticky_header else ""
    changed = replace(current, traffic=traffic)
    await _write(options, store, keys, found, changed, f"model split {options.model} {words}{sticky}")


async def _current(store: Store, keys: Keys, model: str) -> tuple[Found, CurrentRecord]:
    found = await Reader(store, keys, model).read()
    if found.current is None or found.current.unloaded:
        raise NotFoundError(f"model {model}: has no placement; `tessera model load` makes one")
    operation = found.operation
    if operation is not None and operation.active and operation.kind == "rollout":
        raise FailedPreconditionError(
            f"model {model}: operation {operation.id} ({operation.command}, {operation.state.value}) of "
            f"{operation.owner} changes its versions; wait for its end, see `tessera reshard status`"
        )
    return found, found.current


async def _write(
    options: argparse.Namespace, store: Store, keys: Keys, found: Found, changed: CurrentRecord, command: str
) -> None:
    """Show what changes, ask, and write the pointer, comparing that it and the operation are as they were."""
    model, current = found.model, found.current
    assert current is not None
    if changed != current and not options.dry_run:
        say(f"model {model}: {describe(current)} -> {describe(changed)}")
        changes.confirm(options, f"Change model {model}?")
        await write_audited(
            store, keys,
            [
                Compare(keys.current(model), version=found.current_version),
                Compare(keys.operation(model), version=found.operation_version),
            ],
            [Put(keys.current(model), changed.to_bytes())],
            owner=owner(), command=command, result=describe(changed), model=model,
        )  # fmt: skip
    would = "would be " if options.dry_run and changed != current else ""
    content = {
        "model": model,
        "changed": changed != current and not options.dry_run,
        "versions": versions_json(changed.versions),
        "split": split_json(changed.traffic),
    }
    show(options, content, f"model {model}: {would}{describe(changed)}")


def describe(current: CurrentRecord) -> str:
    """Return labels and split in a line."""
    return f"{versions_text(current.versions)}; {split_text(current.traffic)}"


def versions_json(versions: Sequence[PackageRef]) -> list[dict[str, Any]]:
    """Return versions, labels and digests."""
    return [{"version": one.version, "labels": list(one.labels), "digest": one.digest} for one in versions]


def versions_text(versions: Sequence[PackageRef]) -> str:
    """Return versions and labels in a line."""
    return ", ".join(f"{one.version} ({', '.join(one.labels)})" if one.labels else str(one.version) for one in versions)


def split_json(traffic: TrafficRecord) -> dict[str, Any] | None:
    """Return the split, None without one."""
    if not traffic.shares:
        return None
    percent = {str(name): share for name, share in traffic.percent().items()}
    return {"percent": percent, "sticky_header": traffic.sticky_header}


def split_text(traffic: TrafficRecord) -> str:
    """Return the split in a line."""
    if not traffic.shares:
        return "no split"
    sticky = f" by {traffic.sticky_header}" if traffic.sticky_header else ""
    return ", ".join(f"{share:g} % to {name}" for name, share in traffic.percent().items()) + sticky
