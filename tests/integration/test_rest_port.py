"""The REST port over real sockets: clients of all kinds, bounds, drain."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from cpp_ext import _graph
from router.rest import server as server_module
from router.rest.options import RestOptions, RestServices
from router.rest.server import RestServer
from support.rest_port import TIMEOUT_S, ask, load, rest_port
from tessera.errors import UnavailableError

pytestmark = pytest.mark.integration

PREDICT = "/v1/models/half:predict"
ROWS = {"instances": [[1.0], [2.0]]}
ANSWER = b'{\n    "predictions": [[3.5], [4.0]\n    ]\n}'


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, _graph.Graph]:
    return load(tmp_path_factory.mktemp("rest"))


def connect(server: RestServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def test_every_kind_of_request(graphs: dict[int, _graph.Graph]) -> None:
    with rest_port(graphs, metrics_path="/metrics") as server:
        for _ in range(20):  # first on threads, later where they come in
            assert ask(server, "POST", PREDICT, ROWS) == (200, ANSWER)
        assert ask(server, "POST", "/v1/models/half/labels/stable:predict", ROWS)[1].startswith(
            b'{\n    "predictions": [[2.5]'
        )
        body = {"signature_name": "classify_labels", "examples": [{"x": 2.0}]}
        status, text = ask(server, "POST", "/v1/models/half/versions/1:classify", body)
        assert (status, json.loads(text)) == (200, {"results": [[["a", 3.0], ["b", 4.0]]]})
        body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
        assert json.loads(ask(server, "POST", "/v1/models/half:regress", body)[1]) == {"results": [4.0]}
        strings = {"signature_name": "strings", "instances": [{"b64": "/w=="}, "é"]}
        assert json.loads(ask(server, "POST", PREDICT, {**strings, "instances": ["é"]})[1]) == {
            "predictions": [{"s": "é", "s_bytes": {"b64": "w6k="}}]
        }
        zipped = gzip.compress(json.dumps(ROWS).encode())
        assert ask(server, "POST", PREDICT, zipped, {"Content-Encoding": "gzip"}) == (200, ANSWER)
        versions = json.loads(ask(server, "GET", "/v1/models/half")[1])["model_version_status"]
        assert [entry["version"] for entry in versions] == ["2", "1"]
        labelled = json.loads(ask(server, "GET", "/v1/models/half/labels/stable")[1])["model_version_status"]
        assert [entry["version"] for entry in labelled] == ["1"]
        metadata = json.loads(ask(server, "GET", "/v1/models/half/metadata")[1])
        assert metadata["metadata"]["signature_def"]["signature_def"]["halves"]["inputs"]["h"]["dtype"] == "DT_HALF"
        assert ask(server, "GET", "/metrics") == (200, b"up 1\n")
        assert ask(server, "GET", "/v1/models/none")[0] == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(graphs: dict[int, _graph.Graph]) -> None:
    with rest_port(graphs) as server:
        url = f"http://127.0.0.1:{server.port}"
        command = ["curl", "-sS", "-i", "--max-time", "20", "-d", json.dumps(ROWS), url + PREDICT]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        assert text.startswith("HTTP/1.1 200 OK")
        assert "content-type: application/json" in text
        assert text.endswith(ANSWER.decode())


def test_one_connection_for_many_requests_and_pipelining(graphs: dict[int, _graph.Graph]) -> None:
    body = json.dumps(ROWS).encode()
    request = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (PREDICT.encode(), len(body), body)
    with rest_port(graphs) as server, connect(server) as connection:
        connection.sendall(request * 30 + request.replace(b"host: a", b"connection: close"))
        assert read_all(connection).count(ANSWER) == 31


def test_body_in_chunks(graphs: dict[int, _graph.Graph]) -> None:
    body = json.dumps({"instances": [[1.0]] * 50_000}).encode()
    with rest_port(graphs) as server, connect(server) as connection:
        head = b"POST %s HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head % PREDICT.encode())
        for i in range(0, len(body), 40_000):
            part = body[i : i + 40_000]
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == 50_000


def test_heads_bodies_and_connections_are_bounded(graphs: dict[int, _graph.Graph]) -> None:
    with rest_port(graphs, max_header_bytes=2000, max_body_bytes=1000, max_connections=3) as server:
        with connect(server) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 5000)
            assert read_all(connection).startswith(b"HTTP/1.1 431")
        status, text = ask(server, "POST", PREDICT, b"x" * 2000)
        assert (status, b"got more than 1000 bytes" in text) == (400, True)
        with connect(server) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 400")
        held = [connect(server) for _ in range(3)]
        time.sleep(0.2)
        with connect(server) as one_more:
            assert read_all(one_more) == b""
        for connection in held:
            connection.close()
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:  # until the server has seen that they are gone
            try:
                assert ask(server, "GET", "/healthz")[0] == 200
                break
            except OSError:
                time.sleep(0.05)


def test_clients_that_stall_are_cut_off(graphs: dict[int, _graph.Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)
    with rest_port(graphs, stall_timeout_s=0.3, keep_alive_s=5) as server:
        for started in (b"", b"POST /v1/models/half:predict HTT", b"POST %s HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"):
            with connect(server) as connection:
                connection.sendall(started.replace(b"%s", PREDICT.encode()))
                begin = time.monotonic()
                assert read_all(connection) == b""
                assert time.monotonic() - begin < 4.0  # well before the keep-alive timeout
        with connect(server) as connection:  # between two requests a client may rest
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_slow_reader_is_cut_off(graphs: dict[int, _graph.Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)
    rows, row_bytes = 600_000, len("        [\n            3.5\n        ],\n")  # more than sockets hold
    body = json.dumps({"inputs": [[1.0]] * rows}).encode()
    with rest_port(graphs, stall_timeout_s=0.3) as server, connect(server) as connection:
        head = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (PREDICT.encode(), len(body))
        connection.sendall(head + body)
        assert connection.recv(1)  # the answer begins; from here on nobody reads
        time.sleep(1.5)
        assert len(read_all(connection)) < rows * row_bytes


def test_drain_lets_requests_end_and_takes_no_more(graphs: dict[int, _graph.Graph]) -> None:
    body = json.dumps({"inputs": [[1.0]] * 300_000}).encode()
    answers: list[int] = []
    with rest_port(graphs) as server:
        thread = threading.Thread(target=lambda: answers.append(ask(server, "POST", PREDICT, body)[0]))
        thread.start()
        end = time.monotonic() + TIMEOUT_S
        while server.engine.in_flight == 0 and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.001)
        assert server.drain(TIMEOUT_S)
        thread.join(TIMEOUT_S)
        assert answers == [200]
        with pytest.raises(OSError, match="refused"):
            connect(server)


def test_an_address_that_is_taken_is_named(graphs: dict[int, _graph.Graph], tmp_path: Path) -> None:
    services = RestServices(get_model_status=bytes, get_model_metadata=bytes)
    with rest_port(graphs) as server:
        second = RestServer("127.0.0.1", server.port, _graph.Predictor(), services, RestOptions())
        with pytest.raises(UnavailableError, match=f"REST: cannot listen on 127.0.0.1:{server.port}: Address already"):
            second.start()
        second.stop()
        second.stop()


def test_threads_and_descriptors_are_given_back(graphs: dict[int, _graph.Graph]) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

    with rest_port(graphs) as server:
        ask(server, "POST", PREDICT, ROWS)
    before = held()
    for _ in range(5):
        with rest_port(graphs) as server:
            ask(server, "POST", PREDICT, ROWS)
    threads, descriptors = held()
    assert threads <= before[0] + 1
    assert descriptors <= before[1] + 1
