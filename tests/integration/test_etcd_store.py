"""The store's contract on a real etcd, and what only etcd can do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from placement.etcd_store import EtcdStore
from placement.store import Batch, WatchLostError
from support.etcd_process import EtcdProcess, free_port, make_certificates
from support.store_contract import Harness, StoreContract
from tessera.errors import DeadlineExceededError, InvalidArgumentError, TesseraError, UnavailableError

pytestmark = pytest.mark.integration

_roots = itertools.count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdProcess]:
    with EtcdProcess() as process:
        yield process


@pytest.fixture
def harness(etcd: EtcdProcess) -> Harness:
    async def advance(seconds: float) -> None:
        await asyncio.sleep(seconds)

    return Harness(lambda: EtcdStore([etcd.endpoint]), f"/test-{next(_roots)}/", etcd.compact, advance)


async def drain(watch: AsyncGenerator[Batch, None]) -> None:
    """Read until the watch is lost."""
    async with asyncio.timeout(10):
        async for _ in watch:
            pass


class TestEtcdStore(StoreContract):
    pass


def test_the_first_of_several_endpoints_may_be_dead(etcd: EtcdProcess) -> None:
    async def body() -> None:
        store = EtcdStore([f"127.0.0.1:{free_port()}", etcd.endpoint])
        version = await store.put("/dead/a", b"1")
        watch = store.watch("/dead/", version - 1)
        await anext(watch)
        await watch.aclose()
        assert (await store.list_prefix("/dead/")).entries[0].version == version
        await store.close()

    asyncio.run(body())


def test_no_endpoint_answers_fails_in_time_and_names_them() -> None:
    async def body() -> None:
        ports = [free_port(), free_port()]
        store = EtcdStore([f"127.0.0.1:{port}" for port in ports], timeout_s=1.0)
        start_s = time.monotonic()
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}"):
            await store.put("/a", b"")
        assert time.monotonic() - start_s < 3.0
        await store.close()

    asyncio.run(body())


def test_calls_end_when_etcd_is_stopped_and_work_when_it_goes_on() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store = EtcdStore([etcd.endpoint], timeout_s=0.5)
        await store.put("/a", b"1")
        lease = await store.grant_lease(60)
        etcd.pause()
        try:
            start_s = time.monotonic()
            with pytest.raises(DeadlineExceededError, match="outcome unknown"):
                await store.put("/a", b"2")
            with pytest.raises(DeadlineExceededError):
                await store.get("/a")
            with pytest.raises((DeadlineExceededError, UnavailableError)):
                await store.keep_lease(lease)
            assert time.monotonic() - start_s < 4.0
        finally:
            etcd.resume()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(UnavailableError, DeadlineExceededError):
                    await store.put("/a", b"3")
                    break
        await store.close()

    with EtcdProcess() as process:
        asyncio.run(body(process))


def test_a_silent_watch_is_lost_and_a_quiet_one_is_not() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store = EtcdStore([etcd.endpoint], timeout_s=0.5, progress_interval_s=0.3, silence_s=1.5)
        revision = await store.put("/a", b"1")
        heard = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3.0), contextlib.aclosing(store.watch("/", revision)) as watch:
                async for batch in watch:
                    assert batch.events == ()
                    heard += 1
        assert heard >= 3
        watch = store.watch("/", revision)
        await anext(watch)
        etcd.pause()
        start_s = time.monotonic()
        with pytest.raises(WatchLostError) as lost:
            await drain(watch)
        assert lost.value.reason == "silent"
        assert time.monotonic() - start_s < 5.0
        etcd.resume()
        await store.close()

    with EtcdProcess() as process:
        asyncio.run(body(process))


def test_a_killed_etcd_ends_the_watch_at_once_and_data_survive_a_restart() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store = EtcdStore([etcd.endpoint], timeout_s=1.0)
        revision = await store.put("/a", b"1")
        watch = store.watch("/", revision)
        await anext(watch)
        etcd.kill()
        with pytest.raises(WatchLostError, match="ended"):
            await drain(watch)
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            await store.get("/a")
        await asyncio.to_thread(etcd.start)
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(UnavailableError, DeadlineExceededError):
                    entry = await store.get("/a")
                    break
        assert entry is not None
        assert entry.version == revision
        await store.put("/a", b"2", expected=revision)
        await store.close()

    with EtcdProcess() as process:
        asyncio.run(body(process))


def test_tls_with_client_certificate() -> None:
    async def body(etcd: EtcdProcess) -> None:
        files = etcd.certificates
        assert files
        ca, cert, key = (file.read_bytes() for file in (files.ca, files.certificate, files.key))
        store = EtcdStore([f"https://{etcd.endpoint}"], ca=ca, cert=cert, key=key)
        version = await store.put("/a", b"1", expected=0)
        batch = None
        async with contextlib.aclosing(store.watch("/a", version - 1)) as watch:
            async for batch in watch:
                if batch.events:
                    break
        assert batch is not None
        assert batch.events[0].version == version
        await store.close()
        without_certificate = EtcdStore([etcd.endpoint], ca=ca, timeout_s=1.0)
        plain_text = EtcdStore([etcd.endpoint], timeout_s=1.0)
        for other in (without_certificate, plain_text):
            with pytest.raises(TesseraError):
                await other.get("/a")
            await other.close()

    with EtcdProcess(tls=True) as process:
        asyncio.run(body(process))


def test_another_ca_is_refused(tmp_path: Path) -> None:
    async def body(etcd: EtcdProcess) -> None:
        other = make_certificates(tmp_path)
        files = etcd.certificates
        assert files
        store = EtcdStore(
            [etcd.endpoint],
            ca=other.ca.read_bytes(),
            cert=files.certificate.read_bytes(),
            key=files.key.read_bytes(),
            timeout_s=1.0,
        )
        with pytest.raises(UnavailableError):
            await store.get("/a")
        await store.close()

    with EtcdProcess(tls=True) as process:
        asyncio.run(body(process))


@pytest.mark.parametrize("endpoint", ["", "host", "host:0", "host:99999", "ftp://host:1", "https://host:1", "a b:1"])
def test_a_malformed_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidArgumentError, match="etcd endpoint"):
        EtcdStore([endpoint])
