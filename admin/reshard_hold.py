"""`tessera reshard pause`, `verify` and `commit`: a change that waits for an operator."""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output, add_shard_tls, shard_tls
from admin.output import show
from admin.sampled_rows import Verdict, compare
from placement.found import Found, Reader
from placement.keys import Keys
from placement.records import OperationState, Placement
from placement.store import Store
from tessera.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from tessera.repository import Repository

DEFAULT_ROWS = 256
MAX_ROWS = 1_000_000


def add_to(sub: Any) -> None:
    """Add the verbs below `tessera reshard`."""
    pause = sub.add_parser(
        "pause", help="let nobody go on with a change before it is resumed",
        description="Holds a change where it is: whoever drives it stops, and nobody goes on before `resume` or "
        "`abort`. What is staged stays.",
    )  # fmt: skip
    verify = sub.add_parser(
        "verify", help="compare what servers have staged with the repository",
        description="Asks every server of the prepared placement for rows that it has to hold, compares them byte by "
        "byte with the repository's blobs, and writes down that it did.",
    )  # fmt: skip
    commit = sub.add_parser(
        "commit", help="make a prepared, verified change current",
        description="Commits a change that was started with --no-commit, with all its waves, and drives it to its end.",
    )  # fmt: skip
    for parser, function in ((pause, _pause), (verify, _verify), (commit, _commit)):
        parser.add_argument("model", metavar="MODEL", help="name of the model")
        if parser is verify:
            add_sample(parser)
            parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages and blobs")
            add_shard_tls(parser)
        if parser is commit:
            parser.add_argument("--unverified", action="store_true", help="commit what `verify` has not seen, too")
            parser.add_argument("--yes", action="store_true", help="do not ask")
        add_cluster(parser)
        add_output(parser)
        changes.add_timeout(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Add what says how much is compared."""
    parser.add_argument(
        "--rows", type=int, default=DEFAULT_ROWS, metavar="N",
        help="rows to compare, per server and table (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="draws the same rows again (default: by chance)")


async def sample(options: argparse.Namespace, repository: Repository, found: Found, placement: Placement) -> Verdict:
    """Compare rows of `placement`, as `options` (of `add_sample` and `add_shard_tls`) say.

    Raises:
        InvalidArgumentError: --rows is out of range.
        NotFoundError, DataLossError: a manifest cannot be read, or is another than the placement's.
    """
    if not 1 <= options.rows <= MAX_ROWS:
        raise InvalidArgumentError(f"--rows: got {options.rows}, expected 1 to {MAX_ROWS}")
    manifests = []
    for reference in placement.versions:
        manifest = await asyncio.to_thread(repository.read_manifest, placement.model, reference.version)
        if manifest.digest != reference.digest:
            raise DataLossError(
                f"manifest of model {placement.model} version {reference.version}: has digest {manifest.digest}, the "
                f"placement expects {reference.digest}"
            )
        manifests.append(manifest)
    addresses = {server: member.address for server, member in found.members.items()}
    rng = random.Random(options.seed)
    tls = shard_tls(options)
    return await compare(repository, placement, manifests, addresses, rows=options.rows, tls=tls, rng=rng)


async def _verify(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    found = await Reader(store, keys, options.model).read()
    operation, target = found.operation, found.target
    if operation is None:
        raise NotFoundError(f"model {options.model}: there is no operation")
    if operation.state is not OperationState.PREPARED or target is None:
        raise FailedPreconditionError(
            f"model {options.model}: operation {operation.id} is {operation.state.value}, expected PREPARED"
        )
    verdict = await sample(options, Repository(options.repository), found, target)
    if verdict.problems:
        raise DataLossError(f"model {options.model}: epoch {target.epoch}: {'; '.join(verdict.problems)}")
    driver = changes.driver_of(store, keys, options.model)
    await driver.verified(target.epoch, timeout_s=options.timeout_s)
    content = {"model": options.model, "epoch": target.epoch, "rows": dict(verdict.rows)}
    text = (
        f"model {options.model}: epoch {target.epoch}: {sum(verdict.rows.values())} rows of {len(verdict.rows)} "
        "servers are those of the repository; `tessera reshard commit` makes it current"
    )
    show(options, content, text)


async def _pause(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    paused = await changes.driver_of(store, keys, options.model).pause(timeout_s=options.timeout_s)
    changes.show_operation(options, options.model, paused, paused=True)


async def _commit(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    changes.confirm(options, f"Make the prepared placement of model {options.model} current?")
    driver = changes.driver_of(store, keys, options.model)
    done = await driver.commit(unverified=options.unverified, timeout_s=options.timeout_s)
    changes.show_operation(options, options.model, done)
