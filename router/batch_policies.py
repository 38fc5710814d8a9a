"""Which policy each batched region has: the policy file, read again when it changes, and the graphs that follow it.

Pure but for reading the file: graphs and the native `BatchPolicy` are handed in, the caller owns time and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from batching.parameters_file import parse_parameters
from batching.policy_file import Policy, PolicyFile, parse_policy_file
from tessera.errors import InvalidArgumentError, SettingsError, TesseraError
from tessera.files import read_text


class BatchingSettings(Protocol):
    """The settings that this module reads; `RouterSettings` has them."""

    @property
    def batching_policy_file(self) -> str:
        """Path, or empty."""

    @property
    def batching_parameters_file(self) -> str:
        """Path, or empty."""

    @property
    def request_batching(self) -> bool:
        """Whether whole requests are batched: the file then leaves out what TensorFlow Serving's leaves out."""


class BatchedGraph(Protocol):
    """What is used of `_graph.Graph`."""

    @property
    def batch_regions(self) -> Mapping[str, Any]:
        """See `_graph.pyi`, as for the next two."""

    @property
    def own_policy(self) -> object:
        """A `Policy`, or None."""

    def set_batching(self, policies: Mapping[str, Any]) -> None:
        """Take policies by region."""


@dataclass(frozen=True)
class NamedGraph:
    """One loaded version of a model."""

    model: str
    version: int
    graph: Any


class PolicySource:
    """A policy file on disk; blocking, so that an event loop calls it on a helper thread."""

    def __init__(self, flag: str, path: str, parse: Callable[[str, str], PolicyFile]) -> None:
        """Read `path`, which the setting `flag` names, and parse it by `parse(text, place for messages)`.

        Raises:
            SettingsError: it cannot be read, or says something that is not understood; names flag and file.
        """
        self._flag, self._path, self._parse = flag, path, parse
        self._handled = self._seen = self._look()
        self.policies = self._parsed(self._handled)

    @property
    def name(self) -> str:
        """Flag and file, for logs."""
        return f"{self._flag} {self._path}"

    def poll(self, *, at_once: bool = False) -> PolicyFile | None:
        """Return what the file says if it has changed since the last call that returned or raised, else None.

        A change is taken when two calls in a row saw it, since a file may be seen while it is written; with `at_once`
        the file is read whether it has changed or not.

        Raises:
            SettingsError: it has changed, and is wrong; names flag and file. The same content is told once.
        """
        found = self._look()
        seen_before, self._seen = found == self._seen, found
        if not at_once and (found == self._handled or not seen_before):
            return None
        self._handled = found
        return self._parsed(found)

    def _look(self) -> tuple[str, str]:
        """Return (text, "") or ("", problem). Comparing the text is surer than comparing times and inode numbers."""
        try:
            return read_text(self._path), ""
        except TesseraError as error:
            return "", error.message

    def _parsed(self, found: tuple[str, str]) -> PolicyFile:
        text, problem = found
        if problem:
            raise SettingsError(f"{self._flag}: {problem}")
        try:
            return self._parse(text, self._path)
        except InvalidArgumentError as error:
            raise SettingsError(f"{self._flag}: {error.message}") from error


def policy_source(settings: BatchingSettings, warn: Callable[[str], None]) -> PolicySource | None:
    """Return the policy file that the settings name, read and checked, or None when they name none.

    `warn` is told, each time the file is read, what of TensorFlow Serving's parameters means nothing here.

    Raises:
        SettingsError: as `PolicySource`.
    """

    def of_tensorflow(text: str, place: str) -> PolicyFile:
        policy, warnings = parse_parameters(text, place, tensorflow_defaults=settings.request_batching)
        for warning in warnings:
            warn(warning)
        return PolicyFile(policy)

    if settings.batching_policy_file:
        return PolicySource("--batching-policy-file", settings.batching_policy_file, parse_policy_file)
    if settings.batching_parameters_file:
        return PolicySource("--batching-parameters-file", settings.batching_parameters_file, of_tensorflow)
    return None


def check_policy_file(settings: BatchingSettings) -> None:
    """Raise SettingsError if the policy file that the settings name, if any, is wrong."""
    policy_source(settings, lambda _: None)


@dataclass
class BatchPolicies:
    """The policies that hold now. Used on one event loop; `policy_of` may be called on any thread.

    Args:
        make: `_graph.BatchPolicy`, from the fields of a `Policy`.
        policies: None: every region has the default policy.
    """

    make: Callable[..., Any]
    policies: PolicyFile | None = None
    _default: Policy = field(default_factory=Policy)

    def policy_of(self, model: str, graph: BatchedGraph, region: str) -> Policy:
        """Return the policy of a region: the version's own goes before any file of the server."""
        if isinstance(graph.own_policy, Policy):
            return graph.own_policy
        policies = self.policies
        return self._default if policies is None else policies.policy_for(model, region)

    def unused(self, graphs: Iterable[NamedGraph]) -> list[str]:
        """Return the entries of the file that speak of no region of `graphs`: a slip of the pen, perhaps."""
        regions = [(one.model, region) for one in graphs for region in one.graph.batch_regions]
        entries = self.policies.entries if self.policies is not None else ()
        return [
            f"model {entry.model!r} region {entry.region!r}"
            for entry in entries
            if not any(entry.matches(model, region) for model, region in regions)
        ]

    def apply(self, model: str, graph: BatchedGraph) -> None:
        """Give a graph that was just loaded its policies.

        Raises:
            InvalidArgumentError: the native core refuses one; names the field.
        """
        if graph.batch_regions and self.policies is not None and graph.own_policy is None:
            graph.set_batching(self._made(model, graph))

    def replace(self, policies: PolicyFile, graphs: Iterable[NamedGraph]) -> list[str]:
        """Let `policies` hold for `graphs`, all or none of them; return what changed, one line a region.

        Raises:
            InvalidArgumentError: the native core refuses one; names the field. Nothing was changed.
        """
        after = BatchPolicies(self.make, policies)
        batched = [one for one in graphs if one.graph.batch_regions]
        made = [after._made(one.model, one.graph) for one in batched]
        changes: dict[str, None] = {}  # versions of a model share lines
        for one in batched:
            for region in sorted(one.graph.batch_regions):
                old, new = (policies.policy_of(one.model, one.graph, region) for policies in (self, after))
                if text := _difference(old, new):
                    changes[f"model {one.model} region {region}: {text}"] = None
        for one, native in zip(batched, made, strict=True):
            one.graph.set_batching(native)
        self.policies = policies
        return list(changes)

    def _made(self, model: str, graph: BatchedGraph) -> dict[str, Any]:
        return {region: self.make(**asdict(self.policy_of(model, graph, region))) for region in graph.batch_regions}


def _difference(before: Policy, after: Policy) -> str:
    old, new = asdict(before), asdict(after)
    return ", ".join(f"{name} {old[name]} → {new[name]}" for name in new if old[name] != new[name])
