"""GetStatus: what a router says of itself, for `tessera status`. A rare call, answered in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from protos import router_pb2
from tessera.errors import InvalidArgumentError

if TYPE_CHECKING:  # only: the `tessera` command takes the method's name from here and has no use for the rest
    from router.statistics import RegionStatistics, RouterStatistics

GET_STATUS = "/tessera.router.v1.RouterService/GetStatus"


class StatusService:
    """Answers from the counters of the moment of the call."""

    def __init__(self, read: Callable[[], RouterStatistics], build: str) -> None:
        """`read` is called on the server's Python thread; `build` is the version of the software."""
        self._read, self._build = read, build

    def get_status(self, request_bytes: bytes) -> bytes:
        """Return a serialized GetStatusResponse.

        Raises:
            InvalidArgumentError: not a GetStatusRequest.
        """
        try:
            router_pb2.GetStatusRequest.FromString(request_bytes)
        except DecodeError as error:
            raise InvalidArgumentError(f"GetStatusRequest: cannot be parsed: {error}") from error
        return to_message(self._read(), self._build).SerializeToString()


def to_message(statistics: RouterStatistics, build: str) -> router_pb2.GetStatusResponse:
    """Return the message that says what `statistics` do."""
    predictor = statistics.predictor
    response = router_pb2.GetStatusResponse(
        build=build,
        uptime_s=statistics.uptime_s,
        requests=predictor["requests"],
        errors=predictor["errors"],
        in_flight=predictor["in_flight"],
        unused_policies=statistics.unused_policies,
    )
    for region in statistics.regions:
        _fill_region(response.regions.add(), region)
    for name, lane in sorted(statistics.lanes.items()):
        _fill(response.lanes.add(), {"name": name, **lane})
    return response


def _fill_region(message: router_pb2.Region, region: RegionStatistics) -> None:
    message.model, message.version, message.region = region.model, region.version, region.region
    message.signatures.extend(region.signatures)
    message.is_in_loop, message.refused = region.is_in_loop, region.refused
    _fill(message.policy, asdict(region.policy))
    _fill(message.stats, region.stats)


def _fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set every field of `message` to the value of its name; a value that is missing is a bug and raises KeyError."""
    for field in message.DESCRIPTOR.fields:
        value, target = values[field.name], getattr(message, field.name)
        if isinstance(target, Message):
            _fill(target, value)
        elif field.message_type is not None:  # a map
            target.update(value)
        elif isinstance(value, list | tuple):
            target.extend(value)
        else:
            setattr(message, field.name, value)
