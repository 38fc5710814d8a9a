"""GetPlacement: what this server knows of the placement. A rare call, answered in Python."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from placement.keys import Keys
from placement.routing_records import routing_records
from placement.snapshot import ClusterSnapshot
from protos import placement_pb2 as pb
from tessera.clock import Clock
from tessera.errors import FailedPreconditionError, InvalidArgumentError


class PlacementService:
    """Answers from the newest snapshot at the moment of the call, on the server's Python thread.

    Args:
        snapshot: returns it.
        keys: of the cluster.
        server_id: of this server.
        clock: for its time.
    """

    def __init__(self, snapshot: Callable[[], ClusterSnapshot], keys: Keys, server_id: str, clock: Clock) -> None:
        self._snapshot, self._keys, self._server_id, self._clock = snapshot, keys, server_id, clock

    def get_placement(self, request_bytes: bytes) -> bytes:
        """Return a serialized GetPlacementResponse.

        Raises:
            InvalidArgumentError: not a GetPlacementRequest.
            FailedPreconditionError: of another cluster.
        """
        try:
            request = pb.GetPlacementRequest.FromString(request_bytes)
        except DecodeError as error:
            raise InvalidArgumentError(f"GetPlacementRequest: cannot be parsed: {error}") from error
        if request.cluster != self._keys.cluster:
            raise FailedPreconditionError(
                f"cluster: got {request.cluster!r}, this server is of cluster {self._keys.cluster!r}"
            )
        response = pb.GetPlacementResponse(server=self._server_id, wall_ms=int(self._clock.wall_s() * 1000))
        for key, value in sorted(routing_records(self._keys, self._snapshot()).items()):
            response.records.add(key=key, value=value)
        return response.SerializeToString()
