"""`--request-id`: a command that is repeated joins what it began the first time, instead of beginning it again.

The id is that of the operation. It is found while the operation is its model's last, and afterwards in the audit.
"""

from __future__ import annotations

import argparse
import asyncio

from admin import changes
from admin.audit_command import read_audits
from admin.output import show
from placement.found import Reader
from placement.keys import Keys, check_id
from placement.records import OperationRecord
from placement.store import Store
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError

_POLL_S = 0.5


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add `--request-id`."""
    parser.add_argument(
        "--request-id", default="", metavar="ID",
        help="a name for this change: the same command with the same ID again joins it, another command is refused "
        "(default: every command is a change of its own)",
    )  # fmt: skip


async def join(options: argparse.Namespace, store: Store, keys: Keys, model: str, command: str) -> bool:
    """Follow to its end, or show, what an earlier command with the same id began; return whether there was one.

    Raises:
        InvalidArgumentError: the id cannot be one.
        FailedPreconditionError: the earlier command asked for something else, or was aborted.
        DeadlineExceededError: not ended in time.
    """
    if not options.request_id or options.dry_run:
        return False
    check_id(options.request_id, "--request-id")
    operation = (await Reader(store, keys, model).read()).operation
    if operation is not None and operation.id == options.request_id:
        _check_same(options.request_id, operation.command, command)
        if operation.active and options.wait:
            operation = await _follow(options, store, keys, model)
        if operation is not None and operation.id == options.request_id:
            changes.show_operation(options, model, operation)
            return True
    return await _show_audit(options, store, keys, model, command)


async def _follow(options: argparse.Namespace, store: Store, keys: Keys, model: str) -> OperationRecord | None:
    """Wait for whoever drives the operation, and drive it if nobody does."""
    reader, driver = Reader(store, keys, model), changes.driver_of(store, keys, model)
    try:
        async with asyncio.timeout(options.timeout_s):
            while True:
                operation = (await reader.read()).operation
                if operation is None or operation.id != options.request_id or not operation.active:
                    return operation
                if await store.get(keys.lock(model)) is None:
                    try:
                        return await driver.resume(timeout_s=options.timeout_s)
                    except (AbortedError, FailedPreconditionError):
                        if await store.get(keys.lock(model)) is None:
                            raise  # it is not that somebody else was faster
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise DeadlineExceededError(
            f"model {model}: operation {options.request_id}: not ended within {options.timeout_s:g} s; "
            "`tessera reshard status` says what is waited for"
        ) from None


async def _show_audit(options: argparse.Namespace, store: Store, keys: Keys, model: str, command: str) -> bool:
    """Show what became of an operation that is no longer its model's last."""
    entries = [record for _, record in await read_audits(store, keys) if record.operation == options.request_id]
    if not entries:
        return False
    last = entries[-1]
    _check_same(options.request_id, last.command, command)
    content = {"model": model, "operation": last.operation, "command": last.command, "result": last.result}
    show(options, content, f"model {model}: {last.command}: {last.result} (operation {last.operation}, ended earlier)")
    if last.result.startswith("aborted"):
        raise FailedPreconditionError(f"model {model}: the operation was {last.result}; a new try needs a new ID")
    return True


def _check_same(request_id: str, first: str, now: str) -> None:
    if first != now:
        raise FailedPreconditionError(
            f"--request-id: {request_id} was used for {first!r}, this is {now!r}; expected a new ID for a new change"
        )
