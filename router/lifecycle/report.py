"""What the lifecycle's state means to others: statuses, readiness, and why a configuration did not come true. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from router.catalog import VersionStatus
from router.lifecycle.config import ServerConfig
from router.lifecycle.core import Core
from router.lifecycle.versions import Model
from tessera.errors import Code, DeadlineExceededError, FailedPreconditionError, NotFoundError, TesseraError


def statuses(core: Core) -> dict[str, Mapping[int, VersionStatus]]:
    """Return the state of all versions of all models, also of those that ended."""
    return {
        model.name: MappingProxyType(
            {
                number: VersionStatus(version.state, version.code, version.message, version.signature_defs)
                for number, version in model.versions.items()
            }
        )
        for model in core.models.values()
        if model.versions
    }


def not_ready(core: Core) -> list[str]:
    """Return what is missing until every configured model answers, one line each; empty: ready.

    A model is ready when all versions that its policy asks for answer. Once it was, it stays so while any version of it
    answers: an attempt at a newer version that fails takes nothing away from clients.
    """
    lines = []
    for model in core.models.values():
        if model.config is None or (model.was_ready and model.available()):
            continue
        missing = sorted(model.missing())
        if model.disk is None:
            lines.append(f"model {model.name}: {model.config.base_path} was not read yet")
        elif not missing and not model.available():
            lines.append(f"model {model.name}: no version found under {model.config.base_path}")
        lines += [f"model {model.name} version {number}: {_reason(model, number)}" for number in missing]
    return lines


def _reason(model: Model, number: int) -> str:
    version = model.versions.get(number)
    if version is None:
        return "not on disk, or not complete"
    return version.message or version.state.name


def check_labels(
    available_of: Callable[[str], Collection[int]],
    new: ServerConfig,
    old: ServerConfig,
    *,
    allow_unavailable: bool,
    names: Collection[str],
) -> None:
    """Check the labels of the models of `new` that `names` has; only available versions may have labels.

    Args:
        available_of: model → the versions of it that answer requests.
        new: the configuration that is checked.
        old: the one that it replaces.
        allow_unavailable: a label may stand for a version that is not available yet if it is new or stays as it was.
        names: of the models whose labels are checked.

    Raises:
        FailedPreconditionError: TensorFlow Serving's text.
    """
    for config in new.models:
        if config.name not in names or not config.labels:
            continue
        available = available_of(config.name)
        before = old.find(config.name)
        for label, version in sorted(config.labels.items()):
            if version in available:
                continue
            if allow_unavailable and (before is None or before.labels.get(label, version) == version):
                continue
            raise FailedPreconditionError(
                f"Request to assign label to version {version} of model {config.name}, which is not currently "
                "available for inference"
            )


@dataclass(frozen=True)
class Outcome:
    """How far some models have come.

    Attributes:
        pending: models of which no version is available, and of which one may still become so.
        absent: those of them that have nothing to load: the disk shows no version that is wanted, or cannot be read.
        failed: models of which no version is available and none will: model → version → (code, text).
    """

    pending: tuple[str, ...]
    absent: tuple[str, ...]
    failed: Mapping[str, Mapping[int, tuple[Code, str]]]


def outcome(core: Core, names: Iterable[str], *, wait_for_retries: bool, unread: Collection[str] = ()) -> Outcome:
    """Return how far the models `names` have come; without `wait_for_retries` one failure of a version is its end.

    Of a flat model it always is, and so is an empty directory: who names a model by its directory means what is there.
    The base paths of the models in `unread` cannot be read, as far as is known.
    """
    pending, absent, failed = [], [], {}
    for name in names:
        model = core.models[name]
        wanted = {number: model.versions[number] for number in sorted(model.wanted()) if number in model.versions}
        flat = model.config is not None and model.config.flat
        once = flat or not wait_for_retries
        lost = [v for v in wanted.values() if v.settled or (v.failures and once and not v.running)]
        if len(lost) < len(model.wanted()) or model.disk is None:
            pending.append(name)
        elif not model.available():
            if wanted:
                failed[name] = {number: (version.code, version.message) for number, version in wanted.items()}
            elif flat and not model.disk.present:
                failed[name] = {}
            else:
                pending.append(name)  # nothing on disk yet
        if name in pending and (model.has_nothing_to_load() or (model.disk is None and name in unread)):
            absent.append(name)
    return Outcome(tuple(pending), tuple(absent), failed)


def failure(core: Core, names: Iterable[str], result: Outcome, *, what: str, timeout_s: float | None) -> TesseraError:
    """Return the error for models that did not become available; `what` is "model(s)" or "servable(s)"."""
    entries = []
    late = False
    for name in names:
        errors = dict(result.failed.get(name, {}))
        model = core.models[name]
        if name in result.failed and not errors and model.config is not None:
            return NotFoundError(
                f"model {name}: {model.config.base_path} holds neither saved_model.pb nor a numbered directory with one"
            )
        if name in result.pending:
            late = True
            for number in sorted(model.wanted()):
                version = model.versions.get(number)
                if version is not None and not version.available:
                    text = version.message or f"is {version.state.name} after {timeout_s:g} s"
                    errors[number] = (version.code or Code.DEADLINE_EXCEEDED, text)
            if not errors and model.config is not None:
                text = f"no version was found under base path {model.config.base_path} within {timeout_s:g} s"
                entries.append(f"{{name: {name}}} due to error: DEADLINE_EXCEEDED: {text}}}, ")
        entries += [
            f"{{name: {name} version: {number}}} due to error: {code.name}: {text}}}, "
            for number, (code, text) in errors.items()
        ]
    count = len(set(result.pending) | result.failed.keys())
    message = f"{count} {what} did not become available: {{{''.join(entries)}}}"
    return DeadlineExceededError(message) if late else TesseraError(message)
