"""The port for Prometheus and probes: paths, bounds, its end."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tessera.errors import UnavailableError
from tessera.metric_families import MetricsText
from tessera.monitoring_port import METRICS_PATHS, PATHS, MonitoringPort

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


def _port(host: str = "127.0.0.1", port: int = 0, missing: Sequence[str] = ()) -> MonitoringPort:
    return MonitoringPort(host, port, metrics=MetricsText(_seven), missing=lambda: missing)


@pytest.fixture
def server() -> Iterator[MonitoringPort]:
    server = _port()
    yield server
    server.stop()


@pytest.mark.parametrize("path", [*METRICS_PATHS, "/metrics?name[]=x"])
def test_the_metrics_and_the_process_are_told(server: MonitoringPort, path: str) -> None:
    status, kind, text = _get(server.address, path)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert samples["seven"] == 7
    assert samples["process_resident_memory_bytes"] > 1 << 20


def test_readiness_is_that_of_the_moment() -> None:
    missing = ["model m: epoch 3 is not loaded yet"]
    server = _port(missing=missing)
    try:
        status, kind, text = _get(server.address, "/readyz")
        assert (status, kind) == (503, "application/json")
        assert json.loads(text) == {"status": "not ready", "missing": ["model m: epoch 3 is not loaded yet"]}
        assert _get(server.address, "/healthz") == (200, "application/json", '{"status": "alive"}')
        missing.clear()
        status, _, text = _get(server.address, "/readyz?verbose")
        assert status == 200
        assert json.loads(text) == {"status": "ready", "missing": []}
    finally:
        server.stop()


def test_other_paths_and_methods_are_refused(server: MonitoringPort) -> None:
    status, _, text = _get(server.address, "/")
    assert status == 404
    assert all(path in text for path in PATHS)
    assert _get(server.address, METRICS_PATHS[0], "POST")[0] == 501


def test_clients_that_say_nothing_do_not_use_up_threads(server: MonitoringPort) -> None:
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
            assert _get(server.address, METRICS_PATHS[1])[0] == 200
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


def test_an_ipv6_host(server: MonitoringPort) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    other = _port("::1")
    try:
        assert other.address.startswith("[::1]:")
        assert _get(other.address, METRICS_PATHS[0])[0] == 200
    finally:
        other.stop()


def test_an_address_in_use_is_named(server: MonitoringPort) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(UnavailableError, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}: Address already"):
        _port(port=port)


def test_a_bug_in_the_counters_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = MonitoringPort("127.0.0.1", 0, metrics=MetricsText(_broken), missing=tuple)
    try:
        for _ in range(2):
            with pytest.raises(http.client.RemoteDisconnected):
                _get(server.address, METRICS_PATHS[0])
        assert "KeyError: 'batches'" in caplog.text
    finally:
        server.stop()


def test_it_ends_with_a_client_connected() -> None:
    server = _port()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), _TIMEOUT_S):
        begin = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - begin < 5
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), _TIMEOUT_S)
