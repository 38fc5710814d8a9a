"""A router's native half and its shard servers in one process: `python -m support.predict_over_fanout SCENARIO FOLDER`.

A process can tell `_graph` of one fan-out only, so that each scenario has a process of its own; it ends with an
exception, hence exit code 1, when something is wrong. FOLDER is a repository with versions 1 and 2 of the small model;
standard input has the inputs, and what plain TensorFlow answers, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from admin.tensors import from_tensor
from cpp_ext import _graph, _rpc
from protos import serving_pb2
from support.held_tables import LOOKUP
from support.rpc_calls import HoldingHandler, Outcome, call, connected, outcome, start
from support.serving import FLOAT32, INT64, predict_request
from tessera.errors import Code
from tessera.manifest import Manifest
from tessera.repository import Repository

MODEL = "ranker"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
SLOTS = 64
SHARDS = 3

Outputs = dict[str, Any]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until `condition` holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "a condition did not come true"
        time.sleep(0.002)


@dataclass
class System:
    """Servers that each hold both versions whole, a fan-out, a predictor behind a server."""

    repository: Repository
    inputs: Outputs
    expected: dict[int, Outputs]
    stack: contextlib.ExitStack
    stores: list[_rpc.TableStore] = field(default_factory=list)
    shards: list[_rpc.Server] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manifests = {v: self.repository.read_manifest(MODEL, v) for v in (1, 2)}
        self.server = _rpc.Server(address="127.0.0.1:0", pollers=2)
        self.stack.callback(self.server.stop)
        self.fanout = _rpc.Fanout(self.server)
        self.stack.callback(self.fanout.stop)
        _graph.configure(fanout=self.fanout.capsule())
        self.graphs = {v: self.load(v) for v in (1, 2)}
        self.predictor = _graph.Predictor()
        self.server.serve_native(PREDICT, self.predictor.handler())
        self.port = self.server.start()

    def load(self, version: int) -> _graph.Graph:
        manifest = self.manifests[version]
        blobs = {weight.digest: str(self.repository.blob_path(weight.digest)) for weight in manifest.weights}
        return _graph.Graph.load(str(self.repository.package_dir(MODEL, version)), blobs=blobs)

    def _held(self, manifest: Manifest) -> list[_rpc.HeldTable]:
        tables = []
        for table in manifest.tables:
            paths = [self.repository.blob_path(digest) for digest in table.blobs]
            blobs = {i: _rpc.Blob.map(str(path), path.stat().st_size) for i, path in enumerate(paths)}
            shape: dict[str, Any] = {"rows": table.rows, "row_bytes": table.row_bytes, "buckets": table.buckets}
            tables.append(_rpc.HeldTable(name=table.name, blobs=blobs, **shape))
        return tables

    def add_shards(self, count: int = SHARDS) -> None:
        for _ in range(count):
            store = _rpc.TableStore()
            for version, manifest in self.manifests.items():
                digest = bytes.fromhex(manifest.digest)
                store.publish(package_digest=digest, model=MODEL, version=version, tables=self._held(manifest))
            server = _rpc.Server(address="127.0.0.1:0", pollers=1)
            server.serve_tables(store)
            self.stores.append(store)
            self._start(server)

    def add_silent_shard(self) -> HoldingHandler:
        handler = HoldingHandler()
        server = _rpc.Server(address="127.0.0.1:0", pollers=1)
        server.serve_native(LOOKUP, handler.capsule)
        self._start(server)
        self.stack.callback(handler.close)
        return handler

    def _start(self, server: _rpc.Server) -> None:
        self.addresses.append(f"127.0.0.1:{server.start()}")
        self.shards.append(server)
        self.stack.callback(server.stop)

    def route(self, version: int, *, epoch: int = 1, local: bool = False) -> Any:
        """Return a route in which slots go round the servers, beginning at another one with every epoch."""
        manifest = self.manifests[version]
        count = len(self.addresses)
        targets = [
            _rpc.Target(server_id=f"server-{i}", store=self.stores[i])
            if local
            else _rpc.Target(server_id=f"server-{i}", address=self.addresses[i])
            for i in range(count)
        ]
        return self.fanout.route(
            model=MODEL,
            version=version,
            epoch=epoch,
            package_digest=bytes.fromhex(manifest.digest),
            targets=targets,
            slots=[[(slot + epoch) % count] for slot in range(SLOTS)],
            tables=[
                _rpc.RoutedTable(name=t.name, rows=t.rows, row_bytes=t.row_bytes, buckets=t.buckets)
                for t in manifest.tables
            ],
        ).capsule()

    def version(self, number: int, *, epoch: int = 1, graph: _graph.Graph | None = None) -> _graph.Version:
        route = self.route(number, epoch=epoch)
        return _graph.Version(version=number, graph=graph or self.graphs[number], route=route)

    def request(self) -> bytes:
        dtypes = {"user": INT64, "items": INT64, "bias": FLOAT32}
        message = predict_request(MODEL, {alias: (value, dtypes[alias]) for alias, value in self.inputs.items()})
        return message.SerializeToString()

    def check(self, answer: Outcome) -> int:
        """Check that every output is that of one version, the one that the answer names, and return it."""
        assert answer.code == Code.OK, answer
        response = serving_pb2.PredictResponse.FromString(answer.response)
        number: int = response.model_spec.version.value
        assert {alias: from_tensor(tensor) for alias, tensor in response.outputs.items()} == self.expected[number]
        return number

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        dtypes = {"user": np.int64, "items": np.int64, "bias": np.float32}
        return {alias: np.array(value, dtypes[alias]) for alias, value in self.inputs.items()}


def answers_are_bit_equal(system: System) -> None:
    """Over servers and over stores of this process; one request a server, each row once."""
    system.add_shards()
    distinct = len(set(system.inputs["user"])) + len({i for row in system.inputs["items"] for i in row})
    for local in (False, True):
        for version in (1, 2):
            before = [store.stats() for store in system.stores]
            lookups = system.fanout.stats()["lookups"]
            found = system.graphs[version].run(
                "serving_default", system.arrays(), route=system.route(version, local=local)
            )
            assert {alias: value.tolist() for alias, value in found.items()} == system.expected[version]
            after = [store.stats() for store in system.stores]
            assert system.fanout.stats()["lookups"] == lookups + 1
            assert [now["requests"] - then["requests"] for now, then in zip(after, before, strict=True)] == [1] * SHARDS
            assert sum(now["rows"] - then["rows"] for now, then in zip(after, before, strict=True)) == distinct
    assert {shard.stats()["calls_started"] for shard in system.shards} == {2}


def a_request_never_mixes_versions(system: System) -> None:
    """Clients ask while graphs and routes of both versions are published in turn, some of them loaded anew."""
    system.add_shards()
    system.predictor.publish({MODEL: [system.version(1)]})
    stop, seen, problems = threading.Event(), {1: 0, 2: 0}, []

    def load() -> None:
        try:
            with connected(system.port) as channel:
                while not stop.is_set():
                    seen[system.check(call(channel, PREDICT, system.request()))] += 1
        except BaseException as error:  # noqa: BLE001 (shown by the main thread)
            problems.append(error)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    began_s, published = time.monotonic(), 0
    while (time.monotonic() < began_s + 6 or published < 300) and not problems:
        published += 1
        number = 1 + published % 2
        versions = [system.version(number, epoch=published)]
        if published % 3 == 0:  # both, of which the latest answers
            versions = [system.version(1, epoch=published), system.version(2, epoch=published)]
        elif published % 20 == 1:  # a graph of its own, which is unloaded while requests run on it
            versions = [system.version(number, epoch=published, graph=system.load(number))]
        system.predictor.publish({MODEL: versions})
        assert time.monotonic() < began_s + 60
        time.sleep(0.001)
    stop.set()
    for client in clients:
        client.join(20)
    if problems:
        raise problems[0]
    assert min(seen.values()) > 50, seen
    wait_until(lambda: system.predictor.stats()["in_flight"] == 0)
    print(f"{published} publications, answers by version {seen}")


def cancellation_and_deadline_reach_the_shards(system: System) -> None:
    """A client that goes away, or whose deadline passes, leaves nothing in flight."""
    silent = system.add_silent_shard()
    system.predictor.publish({MODEL: [system.version(1)]})

    def nothing_in_flight() -> bool:
        servers = system.fanout.stats()["servers"]
        return not (system.predictor.stats()["in_flight"] or servers["server-0"]["in_flight"])

    with connected(system.port) as channel:
        future = start(channel, PREDICT, system.request())
        held = silent.next()
        assert not nothing_in_flight()
        future.cancel()
        assert held.cancelled.wait(10)
        wait_until(nothing_in_flight)
        held.finish(0, b"")

        future = start(channel, PREDICT, system.request(), timeout_s=0.3)
        held = silent.next()
        left_s = (held.deadline_ns - time.monotonic_ns()) / 1e9
        assert 0 < left_s <= 0.31, left_s  # gRPC rounds up to milliseconds
        assert outcome(future).code == Code.DEADLINE_EXCEEDED
        assert held.cancelled.wait(10)
        wait_until(nothing_in_flight)
        held.finish(0, b"")
    wait_until(lambda: system.server.stats()["calls_in_flight"] == 0)


def no_live_server_is_unavailable(system: System) -> None:
    """The text names table and servers; other requests go on when a server is back."""
    system.add_shards(2)
    system.predictor.publish({MODEL: [system.version(2)]})
    with connected(system.port) as channel:
        assert system.check(call(channel, PREDICT, system.request())) == 2
        system.shards[1].stop()
        answer = call(channel, PREDICT, system.request())
    assert answer.code == Code.UNAVAILABLE, answer
    assert f"server-1 ({system.addresses[1]})" in answer.message
    assert "users" in answer.message or "items" in answer.message


IN_FLIGHT = 2  # lookups that a server is sent at once; those of further requests wait in the router


def the_router_stops_while_requests_wait_for_shards(system: System) -> None:
    """Drain waits in vain, says so, and nothing hangs or crashes."""
    silent = system.add_silent_shard()
    system.predictor.publish({MODEL: [system.version(1)]})
    with connected(system.port) as channel:
        futures = [start(channel, PREDICT, system.request()) for _ in range(5)]
        held = [silent.next() for _ in range(IN_FLIGHT)]
        began_s = time.monotonic()
        assert system.server.drain(0.3) is False
        system.fanout.stop()
        system.server.stop()
        assert time.monotonic() - began_s < 5
        assert all(outcome(future).code in (Code.UNAVAILABLE, Code.CANCELLED) for future in futures)
    assert system.predictor.stats()["in_flight"] == 0
    for one in held:
        assert one.cancelled.wait(10)
        one.finish(0, b"")


def the_interpreter_ends_while_requests_wait_for_shards(system: System) -> None:
    """Nothing is stopped: see `main`."""
    silent = system.add_silent_shard()
    system.predictor.publish({MODEL: [system.version(1)]})
    channel = grpc.insecure_channel(f"127.0.0.1:{system.port}")
    _pending = [start(channel, PREDICT, system.request()) for _ in range(5)]
    held = [silent.next() for _ in range(IN_FLIGHT)]

    def end(one: Any) -> None:
        one.cancelled.wait(10)
        one.finish(0, b"")

    for one in held:
        threading.Thread(target=end, args=(one,), daemon=True).start()
    system.stack.pop_all()  # forgotten


def damaged(good: bytes, count: int) -> Iterator[bytes]:
    """Random bytes, and `good` with bytes changed, cut off, repeated or put in."""
    rng = random.Random(9)
    for number in range(count):
        if number % 4 == 0:
            yield rng.randbytes(rng.randrange(200))
            continue
        body = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(4):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1 if rng.random() < 0.3:
                    del body[at:]
                case 2:
                    body[at:at] = body[at : at + rng.randrange(40)]
                case _:
                    body[at:at] = rng.randbytes(rng.randrange(8))
        yield bytes(body)


def damaged_requests_get_the_codes_of_bad_requests(system: System) -> None:
    """Whatever the bytes are: an answer, or a code that says whose fault it is; the next good request is served."""
    system.add_shards(1)
    system.predictor.publish({MODEL: [system.version(1)]})
    bad = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED}
    counts: dict[Code, int] = {}
    with connected(system.port) as channel:
        for body in damaged(system.request(), 3000):
            answer = call(channel, PREDICT, body)
            assert answer.code in bad | {Code.OK}, (body, answer)
            assert answer.code == Code.OK or answer.message
            counts[answer.code] = counts.get(answer.code, 0) + 1
        assert system.check(call(channel, PREDICT, system.request())) == 1
    assert counts[Code.INVALID_ARGUMENT] > 1000, counts
    assert system.predictor.stats()["in_flight"] == 0
    print(counts)


SCENARIOS: dict[str, Callable[[System], None]] = {
    scenario.__name__: scenario
    for scenario in (
        answers_are_bit_equal,
        a_request_never_mixes_versions,
        cancellation_and_deadline_reach_the_shards,
        no_live_server_is_unavailable,
        the_router_stops_while_requests_wait_for_shards,
        the_interpreter_ends_while_requests_wait_for_shards,
        damaged_requests_get_the_codes_of_bad_requests,
    )
}


def main(arguments: Sequence[str]) -> None:
    """Run one scenario."""
    name, folder = arguments
    given = json.load(sys.stdin)
    expected = {int(version): outputs for version, outputs in given["expected"].items()}
    with contextlib.ExitStack() as stack:
        SCENARIOS[name](System(Repository(Path(folder)), given["inputs"], expected, stack))
    print("done")


if __name__ == "__main__":
    main(sys.argv[1:])
