"""A whole cluster in one process, on an in-memory store: for notebooks, and for machines without etcd.

The servers still listen on sockets of 127.0.0.1 and the router still asks them over gRPC: only processes and etcd are
missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from admin.loading import load
from admin.serving_client import wait_until_available
from placement.memory_store import MemoryStore
from placement.store import Store
from router.server import Router
from router.settings import RouterSettings
from shard_server.server import ShardServer
from shard_server.settings import ShardServerSettings
from tessera.errors import UnavailableError
from tessera.process import started_before
from tessera.repository import Repository

_NO_ETCD = ("in-memory",)
_SIGNAL_POLL_S = 0.5


class InProcessCluster:
    """Router, shard servers and store on a thread of their own; a context manager.

    Example:
        with InProcessCluster("repository", models={"ranker": [1]}) as cluster:
            channel = grpc.insecure_channel(cluster.address)
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        models: Mapping[str, Sequence[int]],
        shards: int = 2,
        replicas: int = 1,
        listen: str = "127.0.0.1:0",
        cluster: str = "default",
        retry_delay_s: float = 0.05,
        pollers: int = 1,
        enable_batching: bool = True,
        batching_policy_file: str | Path = "",
        batching_parameters_file: str | Path = "",
        max_in_flight_batches: int = 0,
        metrics_port: int | None = None,
        timeout_s: float = 600.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Say what is to run; nothing runs before the `with`.

        Args:
            repository: packages and blobs.
            models: name → versions.
            shards: number of shard servers.
            replicas: servers that hold each slot, at most `shards`.
            listen: host:port of the router; port 0 takes a free one, see `address`.
            cluster: name for logs.
            retry_delay_s: silence of a server after which a replica is asked too.
            pollers: threads that serve, per server and router; 0: one per core.
            enable_batching: False runs batched regions request by request.
            batching_policy_file: TOML with the policy of each batched region; read again when it changes.
            batching_parameters_file: TensorFlow Serving's, instead of the former.
            max_in_flight_batches: that a device runs at once, of the whole process; 0: one or two.
            metrics_port: of the router's metrics; 0: any free one, see `metrics_address`; None: no metrics.
            timeout_s: for loading the models.
            say: is told what is being waited for.
        """
        self._repository = Repository(repository)
        self._models = models
        self._shards, self._replicas, self._timeout_s = shards, replicas, timeout_s
        self._router_settings = RouterSettings(
            listen=listen,
            cluster=cluster,
            etcd=_NO_ETCD,
            repository=str(repository),
            router_id="router-0",
            retry_delay_s=retry_delay_s,
            pollers=pollers,
            enable_batching=enable_batching,
            batching_policy_file=str(batching_policy_file),
            batching_parameters_file=str(batching_parameters_file),
            max_in_flight_batches=max_in_flight_batches,
            metrics_port=metrics_port,
        )
        self._cluster, self._pollers = cluster, pollers
        self._started: Future[tuple[str, str]] = Future()
        self._say = say
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tessera-cluster", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.address = ""
        self.metrics_address = ""

    def __enter__(self) -> InProcessCluster:
        """Start everything, load the models, return when they answer.

        Raises:
            TesseraError: what went wrong; nothing of it runs any more then.
        """
        self._thread.start()
        try:
            while not self._started.done():  # a signal may wake another thread of the native core than this one
                wait([self._started], timeout=_SIGNAL_POLL_S)
            self.address, self.metrics_address = self._started.result()
            wait_until_available(self.address, self._models, timeout_s=60.0)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and stop."""
        self._ending.set()
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def describe(self) -> dict[str, Any]:
        """Return what `tessera up` announces."""
        return {
            "router": self.address,
            "metrics": self.metrics_address,
            "etcd": "",
            "cluster": self._cluster,
            "logs": "",
            "pids": {"servers": {}},
        }

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits in __enter__)
            self._fail(error)
        else:
            self._fail(UnavailableError("the cluster was ended before it served"))

    def _fail(self, error: BaseException) -> None:
        if not self._started.done():
            self._started.set_exception(error)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._ending.is_set():  # before there was a loop to tell
            return
        store = MemoryStore()
        running: list[ShardServer | Router] = []
        try:
            if await started_before(self._stop, self._start(store, running)):
                await self._stop.wait()
        finally:
            for one in reversed(running):
                await one.drain()
            await store.close()

    async def _start(self, store: Store, running: list[ShardServer | Router]) -> None:
        for number in range(self._shards):
            server = ShardServer(self._server_settings(number), store)
            running.append(server)
            await server.start()
        router = Router(self._router_settings, store)
        running.append(router)
        await router.start()
        await self._load(store)
        self._started.set_result((router.address, router.metrics_address))

    async def _load(self, store: Store) -> None:
        for model, versions in self._models.items():
            await load(
                store,
                self._cluster,
                self._repository,
                model,
                versions,
                replicas=self._replicas,
                timeout_s=self._timeout_s,
                min_servers=self._shards,
                say=self._say,
            )

    def _server_settings(self, number: int) -> ShardServerSettings:
        return ShardServerSettings(
            server_id=f"server-{number}",
            listen="127.0.0.1:0",
            cluster=self._cluster,
            etcd=_NO_ETCD,
            repository=str(self._repository.root),
            pollers=self._pollers,
        )
