"""The built image from end to end: partition, serve over two shard servers, ask; `make image-check` runs it.

Everything but etcd runs from the image: read-only, without capabilities, as the user that it names.
"""

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support.etcd_process import EtcdProcess, free_port
from support.oci import Containers, Image
from support.small_model import MODEL, SmallModel, make_small_model

_TIMEOUT_S = 120.0
_DATA = Path("/data")
_READY = '{"status": "ready", "missing": []}'


@dataclass
class _Running:
    """What the tests look at; names are those of the containers.

    Attributes:
        pids: of the servers' processes, as the host sees them.
        probes: their ports for metrics and probes.
    """

    containers: Containers
    model: SmallModel
    router: str
    pids: dict[str, int]
    probes: dict[str, str]


def _get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Running]:
    image = Image(Path(os.environ["TESSERA_IMAGE_ROOTFS"]), json.loads(os.environ["TESSERA_IMAGE_CONFIG"]))
    data = tmp_path_factory.mktemp("data")
    model = make_small_model(data / "model")
    (data / "repository").mkdir()
    (data / "state").mkdir()
    for path in (data / "repository", data / "state"):
        path.chmod(0o777)  # the image's user is nobody on this machine
    for path in (data, *data.parents):
        if path.is_relative_to(tmp_path_factory.getbasetemp()):
            path.chmod(0o755)
    containers = Containers(image, tmp_path_factory.mktemp("containers"), {data: _DATA})
    with EtcdProcess() as etcd:
        running = _Running(containers, model, f"127.0.0.1:{free_port()}", {}, {})
        try:
            _start(running, etcd.endpoint)
            yield running
        finally:
            containers.stop()


def _start(running: _Running, etcd: str) -> None:
    """Partition, start two shard servers and a router, load the model."""
    containers = running.containers
    saved_model = _DATA / running.model.saved_models[2].relative_to(running.model.repository.parents[1])
    containers.run(
        "partition", "tessera", "partition", str(saved_model), f"--repository={_DATA / 'repository'}",
        f"--model={MODEL}", "--version=2", "--max-shard-bytes=64KiB",
    )  # fmt: skip
    running.probes |= {name: f"127.0.0.1:{free_port()}" for name in ("server-0", "server-1", "router")}
    common = (f"--etcd={etcd}", f"--repository={_DATA / 'repository'}", "--pollers=1", "--drain-timeout-s=10")
    for name, address in running.probes.items():
        own = ("shard_server", f"--server-id={name}", "--listen=127.0.0.1:0")
        if name == "router":
            own = ("router", f"--listen={running.router}", f"--state-dir={_DATA / 'state'}")
        port = f"--metrics-port={address.rpartition(':')[2]}"
        running.pids[name] = containers.start(name, "python", "-m", *own, *common, port)
        _until(f"{name} lives: {containers.log(name)}", lambda address=address: _get(address, "/healthz")[0] == 200)  # type: ignore[misc]
    containers.run(
        "load", "tessera", "model", "load", f"{MODEL}:2", f"--repository={_DATA / 'repository'}", f"--etcd={etcd}",
        "--min-servers=2",
    )  # fmt: skip
    for name, address in running.probes.items():
        _until(f"{name} is ready", lambda address=address: _get(address, "/readyz") == (200, _READY))  # type: ignore[misc]


def test_it_answers_as_plain_tensorflow(running: _Running) -> None:
    printed = running.containers.run(
        "predict", "tessera", "predict", MODEL, json.dumps(running.model.inputs), f"--router={running.router}"
    )
    answer = json.loads(printed)
    expected = running.model.expected[2]
    np.testing.assert_allclose(answer["rows"], expected["rows"], rtol=1e-6)
    assert answer["version"] == expected["version"]
    lookups = [_get(running.probes[f"server-{i}"], "/metrics")[1] for i in range(2)]
    assert all(re.search(r"^tessera_lookup_requests_total [1-9]", text, re.MULTILINE) for text in lookups)


def _libraries(pid: int) -> str:
    """Return what the process has mapped, one path a line."""
    return "\n".join(
        sorted({line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()})
    )


def test_shard_servers_have_no_tensorflow_and_the_router_no_python_of_it(running: _Running) -> None:
    server, router = _libraries(running.pids["server-0"]), _libraries(running.pids["router"])
    assert "/cpp_ext/_rpc" in server
    assert "tensorflow" not in server
    assert "/cpp_ext/_graph" in router
    assert "/tensorflow/libtensorflow_cc.so.2" in router
    assert "/tensorflow/python/" not in router
    assert all("libtcmalloc_minimal" in libraries for libraries in (server, router))


@pytest.mark.parametrize("name", ["server-0", "router"])
def test_the_processes_have_no_rights(running: _Running, name: str) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{running.pids[name]}/status").read_text().splitlines()
        if "\t" in line
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_the_image_cannot_be_written_to(running: _Running) -> None:
    script = "import pathlib\ntry: pathlib.Path('/opt/tessera/x').touch()\nexcept OSError as e: print(e.strerror)"
    assert running.containers.run("write", "python", "-c", script) == "Read-only file system\n"


def test_the_other_command_and_the_list_of_contents(running: _Running) -> None:
    assert "--model_base_path" in running.containers.run("help", "tensorflow_model_server", "--help")
    document = json.loads((running.containers.image.rootfs / "opt/tessera/sbom.cdx.json").read_text())
    names = {entry["name"] for entry in document["components"]}
    assert {"tensorflow", "numpy", "libc6", "libgrpc++-dev"} <= names
    assert not names & {"pip", "setuptools", "g++", "gcc", "pytest"}


def test_sigterm_ends_the_processes(running: _Running) -> None:
    """The last test: nothing serves after it."""
    for name in ("router", "server-1", "server-0"):
        running.containers.terminate(name, running.pids[name])
    assert "draining" in running.containers.log("router")
