"""The policy file: which region of which model is batched how. Pure but for reading the file.

The format is docs/formats/batching-policy.md. TensorFlow Serving's file is read by `batching/parameters_file.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from batching.parameters_file import load_parameters
from batching.policy import Policy
from tessera.errors import InvalidArgumentError, SettingsError
from tessera.files import read_text
from tessera.settings import parse_bytes

__all__ = ["Entry", "Policy", "PolicyFile", "load_batching_parameters_file", "load_policy_file", "parse_policy_file"]

_FIELDS = tuple(field.name for field in fields(Policy))
_PATTERNS = ("model", "region")


@dataclass(frozen=True)
class Entry:
    """One `[[policy]]`: globs in which `*` stands for any text, slashes too; see `fnmatch`. Case matters."""

    model: str
    region: str
    policy: Policy

    def matches(self, model: str, region: str) -> bool:
        """Whether it speaks of this region."""
        return fnmatchcase(model, self.model) and fnmatchcase(region, self.region)


@dataclass(frozen=True)
class PolicyFile:
    """What a file says."""

    default: Policy = Policy()
    entries: tuple[Entry, ...] = ()

    def policy_for(self, model: str, region: str) -> Policy:
        """Return the policy of the first entry that matches, else the default one."""
        return next((entry.policy for entry in self.entries if entry.matches(model, region)), self.default)


def load_policy_file(path: str | Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        NotFoundError: it cannot be read.
        InvalidArgumentError: it is wrong; names file, table and field.
    """
    return parse_policy_file(read_text(path), str(path))


def parse_policy_file(text: str, place: str) -> PolicyFile:
    """Return what the TOML `text` says; `place` stands for the file in messages.

    Raises:
        InvalidArgumentError: as `load_policy_file`.
    """
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise InvalidArgumentError(f"{place}: is nested too deeply, expected tables of plain values") from None
    except ValueError as error:  # TOMLDecodeError is one; so is an int of thousands of digits
        raise InvalidArgumentError(f"{place}: is no TOML: {error}") from None
    unknown = content.keys() - {"default", "policy"}
    if unknown:
        raise InvalidArgumentError(f"{place}: unknown table {min(unknown)!r}, expected [default] and [[policy]]")
    table = content.get("default", {})
    if not isinstance(table, dict):
        raise InvalidArgumentError(f"{place}: default: got {table!r}, expected the table [default]")
    default = _policy(table, Policy(), f"{place}: [default]")
    tables = content.get("policy", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidArgumentError(f"{place}: policy: got {tables!r}, expected tables [[policy]]")
    return PolicyFile(default, _entries(tables, default, place))


def _entries(tables: list[dict[str, Any]], default: Policy, place: str) -> tuple[Entry, ...]:
    entries: dict[tuple[str, str], Entry] = {}
    for number, table in enumerate(tables, 1):
        where = f"{place}: [[policy]] {number}"
        patterns = []
        for name in _PATTERNS:
            pattern = table.get(name)
            if not isinstance(pattern, str) or not pattern:
                got = "nothing" if pattern is None else repr(pattern)
                raise InvalidArgumentError(f"{where}: {name}: got {got}, expected a name, or a glob such as '*'")
            patterns.append(pattern)
        model, region = patterns
        if (model, region) in entries:
            raise InvalidArgumentError(
                f"{where}: model {model!r} and region {region!r} are those of an entry before, expected other ones; "
                "the first match holds"
            )
        rest = {name: value for name, value in table.items() if name not in _PATTERNS}
        entries[model, region] = Entry(model, region, _policy(rest, default, where))
    return tuple(entries.values())


def _policy(table: Mapping[str, Any], default: Policy, where: str) -> Policy:
    """Return the policy of a table; what it does not say is as in `default`."""
    for name in table:
        if name not in _FIELDS:
            raise InvalidArgumentError(f"{where}: unknown field {name!r}, expected some of {', '.join(_FIELDS)}")
    values = dict(table)
    if isinstance(values.get("allowed_batch_sizes"), list):
        values["allowed_batch_sizes"] = tuple(values["allowed_batch_sizes"])
    text = values.get("max_enqueued_bytes")
    if isinstance(text, str):
        try:
            values["max_enqueued_bytes"] = int(parse_bytes(text))
        except OverflowError:
            raise InvalidArgumentError(f"{where}: max_enqueued_bytes: got {text!r}, expected less") from None
        except SettingsError as error:
            raise InvalidArgumentError(f"{where}: max_enqueued_bytes: {error.message}") from None
    try:
        return replace(default, **values)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error.message}") from None


def load_batching_parameters_file(path: str | Path) -> tuple[PolicyFile, list[str]]:
    """Read TensorFlow Serving's `batching_parameters_file`; return it as the policy of all regions, and warnings.

    A warning says what of the file has no meaning here, or another one.

    Raises:
        NotFoundError: it cannot be read.
        InvalidArgumentError: it is wrong; names file, line and field.
    """
    policy, warnings = load_parameters(path)
    return PolicyFile(policy), warnings
