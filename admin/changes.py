"""What the verbs that change a live placement share: reading, planning, asking, and driving to the end."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from admin.arguments import add_cluster, add_output
from admin.change_text import operation_json, operation_text, plan_json, plan_text
from admin.loading import owner
from admin.output import show
from admin.progress import say
from admin.stores import open_store
from placement.change import ChangeDriver
from placement.change_plan import ChangePlan, Request, plan_change
from placement.change_report import Sizes
from placement.document import PackageRef
from placement.found import Found, Reader
from placement.keys import Keys
from placement.plan import slot_bytes
from placement.records import OperationRecord, OperationState
from placement.store import Store
from tessera.errors import FailedPreconditionError, InvalidArgumentError
from tessera.repository import Repository

DEFAULT_TIMEOUT_S = 3600.0


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every verb that plans needs."""
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages, for sizes of slots")
    add_cluster(parser)
    add_output(parser)


def add_drive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every verb that changes something takes."""
    parser.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True,
        help="drive the change to its end; without, servers begin to prepare and `reshard resume` goes on "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--no-commit", action="store_true",
        help="stop when everything is prepared; `reshard verify` compares it, `reshard commit` goes on",
    )  # fmt: skip
    add_timeout(parser)


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout-s`."""
    parser.add_argument(
        "--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS",
        help="then exit with code 5; the change stays as it is and can be resumed (default: %(default)s)",
    )  # fmt: skip


def run_verb(options: argparse.Namespace, verb: Callable[[argparse.Namespace, Store, Keys], Awaitable[None]]) -> None:
    """Run `verb` with the store that `options` name, and close it."""

    async def main() -> None:
        store = open_store(options)
        try:
            await verb(options, store, Keys(options.cluster))
        finally:
            await store.close()

    asyncio.run(main())


async def plan(
    store: Store, keys: Keys, repository: Repository, model: str, request: Request, *, kind: str, command: str
) -> ChangePlan:
    """Read what is there and plan `request`.

    Raises:
        NotFoundError, DataLossError: the repository lacks a package that is served or asked for.
        As `placement.change_plan.plan_change`.
    """
    found = await Reader(store, keys, model).read()
    sizes = await asyncio.to_thread(_sizes, repository, found, request)
    return await asyncio.to_thread(plan_change, found, request, sizes, kind=kind, command=command)


def _sizes(repository: Repository, found: Found, request: Request) -> Sizes:
    current = found.current_placement
    if current is None:
        return Sizes((0,), (0,), (0,))
    after: Sequence[PackageRef] = current.versions
    if request.versions is not None:
        after = request.versions
    elif request.back_to is not None:
        after = request.back_to.versions
    slots = request.finest(current)
    old = [repository.read_manifest(found.model, reference.version) for reference in current.versions]
    if after == current.versions:
        sizes = slot_bytes(old, slots)
        return Sizes(sizes, sizes, sizes)
    new = [repository.read_manifest(found.model, reference.version) for reference in after]
    return Sizes(slot_bytes(old, slots), slot_bytes(new, slots), slot_bytes([*old, *new], slots))


async def carry_out(store: Store, keys: Keys, model: str, plan: ChangePlan, options: argparse.Namespace) -> None:
    """Show the plan, ask, and make the change; stdout gets the operation as it is in the end.

    Raises:
        FailedPreconditionError: a check of the plan does not hold, or the operator said no.
        As `ChangeDriver.begin`.
    """
    if plan.change is None:
        show(options, {"changed": False}, f"model {model}: is as it was asked for; nothing to change")
        return
    if options.dry_run:
        show(options, plan_json(model, plan), plan_text(model, plan))
    else:
        print(plan_text(model, plan), file=sys.stderr)
    if plan.problems:
        raise FailedPreconditionError(
            f"model {model}: refused: " + "; ".join(f"{check.name}: {check.problem}" for check in plan.problems)
        )
    if options.dry_run:
        return
    confirm(options, f"Change model {model}?")
    driver = driver_of(store, keys, model)
    change = replace(plan.change, hold=options.no_commit, id=getattr(options, "request_id", ""))
    done = await driver.begin(change, timeout_s=options.timeout_s, wait=options.wait)
    show_operation(options, model, done)


def driver_of(store: Store, keys: Keys, model: str) -> ChangeDriver:
    """Return a driver that tells its progress on stderr."""
    return ChangeDriver(store, keys, model, owner=owner(), progress=say)


def show_operation(
    options: argparse.Namespace,
    model: str,
    operation: OperationRecord,
    *,
    wanted: OperationState = OperationState.DONE,
    paused: bool = False,
) -> None:
    """Print an operation as its driver left it.

    Raises:
        FailedPreconditionError: it has ended, and not as `wanted`; or it is paused where `paused` is not wanted.
    """
    show(options, operation_json(model, operation), operation_text(model, operation))
    if not operation.active and operation.state is not wanted:
        raise FailedPreconditionError(f"model {model}: the operation is {operation.state.value}: {operation.error}")
    if operation.active and operation.paused and not paused:
        raise FailedPreconditionError(f"model {model}: the operation was paused; `tessera reshard resume` goes on")


def confirm(options: argparse.Namespace, question: str) -> None:
    """Ask before something that matters, unless `--yes` was given.

    Raises:
        InvalidArgumentError: there is nobody to ask.
        FailedPreconditionError: the answer was not yes.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentError("--yes: needed where nobody can be asked")
    print(f"{question} [y/N] ", file=sys.stderr, end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FailedPreconditionError("not confirmed; nothing was changed")
