"""`tensorflow_model_server` as a process: how it starts, ends and is told of other models, with foreign clients."""

import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import grpc
import pytest

from support.model_server import model_server, run_to_end, wait_for
from support.serving_requests import answer_of, client

pytestmark = pytest.mark.integration


def _half(models: Path) -> tuple[str, str]:
    return "--model_name=half", f"--model_base_path={models / 'half_plus_two'}"


def test_upstreams_own_flags(half_models: Path, tmp_path: Path) -> None:
    """What TensorFlow Serving's tests start it with, all at once."""
    (tmp_path / "monitoring.txt").write_text(
        'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }'
    )
    (tmp_path / "batching.txt").write_text(
        "max_batch_size { value: 64 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 10 } "
        "num_batch_threads { value: 1 } allowed_batch_sizes: 64"
    )
    socket = tmp_path / "serving.sock"
    arguments = (
        *_half(half_models),
        "--rest_api_timeout_in_ms=5000",
        f"--grpc_socket_path={socket}",
        f"--monitoring_config_file={tmp_path / 'monitoring.txt'}",
        "--enable_batching",
        f"--batching_parameters_file={tmp_path / 'batching.txt'}",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=100,grpc.lb_policy_name=round_robin",
    )
    with model_server(tmp_path, *arguments) as server:
        for address in (server.address, f"unix:{socket}"):
            with client(address) as calls:
                assert answer_of(calls) == (3.0, 123)
        code, text, _ = server.http("GET", "/monitoring/prometheus/metrics")
        assert code == 200
        assert ':tensorflow:serving:request_count{model_name="half",status="OK"} 2' in text
        assert server.http("GET", "/monitoring/other")[0] in (400, 404)
        assert server.stop() == 0


def test_without_rest_and_without_a_port(half_models: Path, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with (
        model_server(tmp_path, *_half(half_models), f"--grpc_socket_path={socket}", rest=False, grpc_port=False),
        client(f"unix:{socket}") as calls,
    ):
        assert answer_of(calls) == (3.0, 123)


def test_a_wrong_config_file_is_told_on_stderr_and_stdout(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("improper_config")
    ended = run_to_end("--port=1", f"--model_config_file={path}")
    assert ended.returncode == 255
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:" in ended.stderr
    assert ended.stdout == f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'\n"


def test_a_port_that_is_taken(half_models: Path, tmp_path: Path) -> None:
    with model_server(tmp_path, *_half(half_models), rest=False) as server:
        ended = run_to_end(f"--port={server.port}", *_half(half_models))
        assert ended.returncode == 255
        assert ended.stdout.startswith("Failed to start server. Error: UNAVAILABLE: ")
        assert str(server.port) in ended.stdout


def test_unknown_flags_are_told_and_the_server_goes_on(half_models: Path, tmp_path: Path) -> None:
    with model_server(tmp_path, *_half(half_models), "--no_such_flag=3", rest=False) as server:
        with client(server.address) as calls:
            assert answer_of(calls) == (3.0, 123)
        assert server.stdout.startswith("unknown argument: --no_such_flag=3\nusage: ")


def test_a_model_that_cannot_be_loaded_ends_the_start(half_models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "1"
    shutil.copytree(half_models / "half_plus_two" / "00000123", broken)
    (broken / "saved_model.pb").write_bytes(b"\xff" * 100)
    ended = run_to_end("--port=1", f"--model_base_path={broken.parent}", "--max_num_load_retries=0")
    assert ended.returncode == 255
    assert "1 servable(s) did not become available: {{name: default version: 1} due to error:" in ended.stdout


def test_sigterm_under_load_loses_nothing(half_models: Path, tmp_path: Path) -> None:
    """Requests that were accepted are answered; those that came too late say UNAVAILABLE, and it ends with 0."""
    failures: list[str] = []
    answers = [0] * 4
    stop = threading.Event()

    def ask(number: int, address: str) -> None:
        with client(address) as calls:
            while not stop.is_set():
                try:
                    assert answer_of(calls) == (3.0, 123)
                    answers[number] += 1
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        failures.append(f"{error.code()}: {error.details()}")
                    return

    with model_server(tmp_path, *_half(half_models), rest=False) as server:
        threads = [threading.Thread(target=ask, args=(number, server.address)) for number in range(len(answers))]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: min(answers) > 50, 30)
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 5
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
    assert failures == []


def test_a_second_signal_ends_it_at_once(half_models: Path, tmp_path: Path) -> None:
    with model_server(tmp_path, *_half(half_models), rest=False) as server:
        server.signal(signal.SIGSTOP)  # both signals are there before it can end on the first
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        server.signal(signal.SIGCONT)
        assert server.process.wait(20) in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_it_is_one_process_that_a_kill_ends(half_models: Path, tmp_path: Path) -> None:
    """No child outlives it, whatever ends it."""
    with model_server(tmp_path, *_half(half_models)) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert children == []
        server.process.kill()
        assert server.process.wait(10) == -signal.SIGKILL


def test_a_parent_that_is_killed_takes_the_server_with_it(half_models: Path, tmp_path: Path) -> None:
    """`tessera serve` under the launcher that `tessera up` uses."""
    program = textwrap.dedent(
        """
        import subprocess, sys, time
        from admin.processes import bound_to_parent
        child = subprocess.Popen(bound_to_parent([sys.executable, "-m", "admin", "serve", *sys.argv[1:]]))
        print(child.pid, flush=True)
        time.sleep(600)
        """
    )
    ready = tmp_path / "ready"
    socket = tmp_path / "s"
    arguments = ["--port=0", f"--grpc_socket_path={socket}", f"--ready_file={ready}", *_half(half_models)]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        wait_for(ready.exists, 60)
        parent.kill()
        parent.wait()
        wait_for(lambda: not _runs(pid), 10)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
