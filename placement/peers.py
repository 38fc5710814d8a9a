"""Asks shard servers what they know of the placement, when the store cannot be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from placement.keys import Keys
from placement.peer_calls import TIMEOUT_S, PeerTls, call
from protos import placement_pb2 as pb
from tessera.errors import DataLossError, TesseraError

GET_PLACEMENT = "/tessera.placement.v1.PlacementService/GetPlacement"
MAX_AT_ONCE = 32


@dataclass(frozen=True)
class PeerAnswer:
    """What one server said.

    Attributes:
        server: its id.
        records: key → value (`placement.routing_records`).
        clock_offset_s: how far its clock is ahead of ours; as uncertain as `round_trip_s`.
    """

    server: str
    records: Mapping[str, bytes]
    clock_offset_s: float
    round_trip_s: float


@dataclass(frozen=True)
class PeerAnswers:
    """Address → answer, and address → why there is none."""

    answers: Mapping[str, PeerAnswer]
    problems: Mapping[str, str]

    @property
    def records(self) -> dict[str, Mapping[str, bytes]]:
        """Address → records."""
        return {address: answer.records for address, answer in self.answers.items()}


async def ask_peers(keys: Keys, addresses: Sequence[str], tls: PeerTls, timeout_s: float = TIMEOUT_S) -> PeerAnswers:
    """Ask the servers at `addresses`, some at once; one that does not answer in time is a problem, not an error."""
    limit = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(address: str) -> PeerAnswer | str:
        async with limit:
            try:
                return await _ask(keys, address, tls, timeout_s)
            except TesseraError as error:
                return error.message

    distinct = list(dict.fromkeys(addresses))
    found = dict(zip(distinct, await asyncio.gather(*map(ask, distinct)), strict=True))
    return PeerAnswers(
        {address: one for address, one in found.items() if isinstance(one, PeerAnswer)},
        {address: one for address, one in found.items() if isinstance(one, str)},
    )


async def _ask(keys: Keys, address: str, tls: PeerTls, timeout_s: float) -> PeerAnswer:
    request = pb.GetPlacementRequest(cluster=keys.cluster).SerializeToString()
    before_s, wall_s = time.monotonic(), time.time()
    answer = await call(address, GET_PLACEMENT, request, tls, timeout_s)
    took_s = time.monotonic() - before_s
    try:
        response = pb.GetPlacementResponse.FromString(answer)
    except DecodeError as error:
        raise DataLossError(f"shard server {address}: GetPlacementResponse: cannot be parsed: {error}") from error
    records = {record.key: record.value for record in response.records}
    offset_s = response.wall_ms / 1000 - (wall_s + took_s / 2)
    return PeerAnswer(response.server, records, offset_s, took_s)
