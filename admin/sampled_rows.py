"""Compares rows that shard servers answer with what the repository's blobs say: a sample of what each has to hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from placement.document import Placement
from placement.peer_calls import PeerTls, call
from protos import data_plane_pb2 as pb
from shard_server.desired import owned_buckets
from tessera.errors import DataLossError, TesseraError
from tessera.manifest import Manifest
from tessera.manifest_parts import Table
from tessera.repository import Repository

LOOKUP = "/tessera.data.v1.TableService/Lookup"
_LOOKUP_BYTES = 1 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Sample:
    """Rows of one table that a server is to be asked for; `table` is its position in the manifest."""

    server: str
    manifest: Manifest
    table: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of asking: per server how many rows were equal, and what was not as it should be."""

    rows: Mapping[str, int]
    problems: tuple[str, ...]


def samples(placement: Placement, manifests: Sequence[Manifest], rows: int, rng: random.Random) -> Iterator[Sample]:
    """Yield what to ask each server of `placement` for: `rows` of each table of which it holds buckets.

    Buckets are drawn by chance, then rows in them, so that no slot is left out because another is larger. A sample is
    at most 1 MiB.
    """
    for manifest in manifests:
        for server in placement.servers:
            for position, buckets in enumerate(owned_buckets(manifest, placement, server)):
                if not buckets:
                    continue
                table = manifest.tables[position]
                some = sorted(buckets)
                drawn = []
                for _ in range(rows):
                    bucket = rng.choice(some)
                    drawn.append(bucket + table.buckets * rng.randrange(table.bucket_rows(bucket)))
                step = max(1, _LOOKUP_BYTES // table.row_bytes)
                for start in range(0, rows, step):
                    yield Sample(server, manifest, position, tuple(drawn[start : start + step]))


def request_of(sample: Sample, epoch: int) -> bytes:
    """Return the lookup that asks for a sample."""
    table = sample.manifest.tables[sample.table]
    block = pb.LookupBlock(table=sample.table)
    (block.rows_u64 if table.rows >= 1 << 32 else block.rows_u32).extend(sample.rows)
    message = pb.LookupRequest(
        package_digest=bytes.fromhex(sample.manifest.digest),
        model=sample.manifest.model,
        version=sample.manifest.version,
        epoch=epoch,
        blocks=[block],
    )
    return message.SerializeToString()


def expected_rows(repository: Repository, table: Table, rows: Sequence[int]) -> bytes:
    """Return the bytes of `rows` as the blobs have them.

    Raises:
        DataLossError: a blob is missing or too short; names it.
    """
    parts = []
    for row in rows:
        path = repository.blob_path(table.blobs[row % table.buckets])
        try:
            with path.open("rb") as file:
                file.seek(row // table.buckets * table.row_bytes)
                part = file.read(table.row_bytes)
        except OSError as error:
            raise DataLossError(f"{path}: {error.strerror}") from error
        if len(part) != table.row_bytes:
            raise DataLossError(f"{path}: has no row {row // table.buckets} of {table.row_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


async def compare(
    repository: Repository,
    placement: Placement,
    manifests: Sequence[Manifest],
    addresses: Mapping[str, str],
    *,
    rows: int,
    tls: PeerTls,
    rng: random.Random,
) -> Verdict:
    """Ask every server of `placement` for a sample of its rows, servers side by side, and compare bytes.

    Args:
        repository: has the blobs.
        placement: what the servers should hold.
        manifests: of its versions.
        addresses: server id → host:port.
        rows: how many, per server and table.
        tls: for the servers.
        rng: draws the sample.
    """
    by_server: dict[str, list[Sample]] = {server: [] for server in placement.servers}
    for sample in samples(placement, manifests, rows, rng):
        by_server[sample.server].append(sample)
    equal = dict.fromkeys(placement.servers, 0)

    async def ask(server: str) -> list[str]:
        problems = []
        for sample in by_server[server]:
            problem = await _ask(repository, sample, addresses.get(server, ""), placement.epoch, tls)
            if problem:
                problems.append(f"server {server}: {problem}")
                break  # one a server: the rest would say the same
            equal[server] += len(sample.rows)
        return problems

    found = await asyncio.gather(*(ask(server) for server in placement.servers))
    return Verdict(equal, tuple(problem for problems in found for problem in problems))


async def _ask(repository: Repository, sample: Sample, address: str, epoch: int, tls: PeerTls) -> str:
    """Return what is wrong with the server's answer; empty: nothing."""
    table = sample.manifest.tables[sample.table]
    if not address:
        return "its address is not known"
    try:
        answer = await call(address, LOOKUP, request_of(sample, epoch), tls, _TIMEOUT_S)
        expected = await asyncio.to_thread(expected_rows, repository, table, sample.rows)
    except TesseraError as error:
        return error.message
    response = pb.LookupResponse.FromString(answer)
    if response.WhichOneof("result") == "refusal":
        return f"table {table.name!r}: refused: {response.refusal.message}"
    if response.rows == expected:
        return ""
    size = table.row_bytes
    wrong = [
        row
        for index, row in enumerate(sample.rows)
        if response.rows[index * size : (index + 1) * size] != expected[index * size : (index + 1) * size]
    ]
    return (
        f"table {table.name!r} of version {sample.manifest.version}: {len(wrong)} of {len(sample.rows)} rows differ "
        f"from the repository's, the first is row {wrong[0]}"
        if wrong
        else f"table {table.name!r}: got {len(response.rows)} bytes, expected {len(expected)}"
    )
