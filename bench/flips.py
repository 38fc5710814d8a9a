"""How long it takes from a commit until a router answers with the new version."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from bench import servers
from placement.change import ChangeDriver
from placement.change_plan import ChangePlan, Request
from placement.found import Reader
from placement.keys import Keys
from placement.records import PackageRef
from placement.store import Compare, Delete, Put, Store
from protos import serving_pb2
from tessera.errors import InternalError

_TIMEOUT_S = 120.0


class _Timed:
    """A store that notes when the transaction that makes a placement current begins; all else is the store's."""

    def __init__(self, store: Store, current_key: str) -> None:
        self._store, self._current_key = store, current_key
        self.begin_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        """As the store's."""
        if any(operation.key == self._current_key for operation in operations):
            self.begin_s = time.monotonic()
        version: int = await self._store.transact(compares, operations)
        return version


class _Asking:
    """Sends one request after the other; notes when the version of the answers changes."""

    def __init__(self, address: str, wire: bytes) -> None:
        self._address, self._wire = address, wire
        self._stop = threading.Event()
        self.first: dict[int, float] = {}
        self.failed = ""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Asking:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = 0
        with grpc.insecure_channel(self._address) as channel:
            send: Any = channel.unary_unary(servers.PREDICT)
            while not self._stop.is_set():
                try:
                    answer = serving_pb2.PredictResponse.FromString(send(self._wire, timeout=10.0))
                except grpc.RpcError as error:
                    self.failed = f"{error.code().name}: {error.details()}"
                    return
                version = answer.model_spec.version.value
                if version != last:
                    last = version
                    self.first[version] = time.monotonic()


async def measure_flips(
    store: Store,
    keys: Keys,
    model: str,
    router: str,
    wire: bytes,
    count: int,
    plan: Callable[[Request], Awaitable[ChangePlan]],
) -> list[float]:
    """Roll out versions 1 and 2 in turn, `count` times; return the seconds of each flip.

    Raises:
        InternalError: a request failed, or the router did not take a version.
    """
    timed: Any = _Timed(store, keys.current(model))
    found = await Reader(store, keys, model).read()
    assert found.current_placement is not None
    known = {reference.version: reference for reference in found.current_placement.versions}
    if found.base is not None:
        known |= {reference.version: reference for reference in found.base.versions}
    seconds = []
    version = found.current_placement.versions[0].version
    with _Asking(router, wire) as asking:
        for _ in range(count):
            version = 3 - version
            asking.first.pop(version, None)
            reference = PackageRef(version, known[version].digest)
            planned = await plan(Request(versions=(reference,)))
            assert planned.change is not None
            driver = ChangeDriver(timed, keys, model, owner="bench")
            await driver.begin(planned.change, timeout_s=_TIMEOUT_S)
            if asking.failed or version not in asking.first:
                raise InternalError(f"router {router}: {asking.failed or f'never answered with version {version}'}")
            seconds.append(asking.first[version] - timed.begin_s)
    return seconds
