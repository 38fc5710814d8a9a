"""The listener for Prometheus: paths, bounds, its end."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import MetricsText
from router.metrics_server import PATHS, MetricsServer
from tessera.errors import UnavailableError

pytestmark = pytest.mark.integration

_TIMEOUT_S = 10.0


def _seven() -> Iterator[Metric]:
    yield GaugeMetricFamily("seven", "Seven.", 7)


def _broken() -> Iterator[Metric]:
    raise KeyError("batches")


def _get(address: str, path: str, method: str = "GET") -> tuple[int, str, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", 0, MetricsText(_seven))
    yield server
    server.stop()


@pytest.mark.parametrize("path", [*PATHS, "/metrics?name[]=x"])
def test_the_metrics_and_the_process_are_told(server: MetricsServer, path: str) -> None:
    status, kind, text = _get(server.address, path)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert samples["seven"] == 7
    assert samples["process_resident_memory_bytes"] > 1 << 20


def test_other_paths_and_methods_are_refused(server: MetricsServer) -> None:
    status, _, text = _get(server.address, "/")
    assert status == 404
    assert PATHS[0] in text
    assert _get(server.address, PATHS[0], "POST")[0] == 501


def test_clients_that_say_nothing_do_not_use_up_threads(server: MetricsServer) -> None:
    host, _, port = server.address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), _TIMEOUT_S) for _ in range(30)]
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while sum(_is_closed(one) for one in silent) < 22:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert sum("process_request_thread" in thread.name for thread in threading.enumerate()) <= 8
    finally:
        for one in silent:
            one.close()
    deadline = time.monotonic() + _TIMEOUT_S
    while True:  # those that were served give their place back
        try:
            assert _get(server.address, PATHS[1])[0] == 200
            break
        except (ConnectionError, http.client.RemoteDisconnected):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_an_ipv6_host(server: MetricsServer) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    other = MetricsServer("::1", 0, MetricsText(_seven))
    try:
        assert other.address.startswith("[::1]:")
        assert _get(other.address, PATHS[0])[0] == 200
    finally:
        other.stop()


def test_an_address_in_use_is_named(server: MetricsServer) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(UnavailableError, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}: Address already"):
        MetricsServer("127.0.0.1", port, MetricsText(_seven))


def test_a_bug_in_the_counters_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = MetricsServer("127.0.0.1", 0, MetricsText(_broken))
    try:
        for _ in range(2):
            with pytest.raises(http.client.RemoteDisconnected):
                _get(server.address, PATHS[0])
        assert "KeyError: 'batches'" in caplog.text
    finally:
        server.stop()


def test_it_ends_with_a_client_connected() -> None:
    server = MetricsServer("127.0.0.1", 0, MetricsText(_seven))
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), _TIMEOUT_S):
        begin = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - begin < 5
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), _TIMEOUT_S)
