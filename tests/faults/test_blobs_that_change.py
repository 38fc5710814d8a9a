"""Blobs that go bad after they were loaded: found by reading them again, and had anew or served no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from admin.serving_client import open_channel
from support.blobs import digest_of
from support.command_line import tessera_here
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, child
from support.resharding import flags
from support.rpc_calls import wait_until
from support.running import ClusterFactory
from support.serving import predict
from support.small_model import MODEL, SmallModel
from tessera.errors import TesseraError
from tessera.repository import Repository

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PATIENT_S = 120.0
_SCRUBBING = ("--scrub-interval-s=2",)
_WRONG = "a blob that was right has become wrong"


def _digest_and_offset(model: SmallModel) -> tuple[str, int]:
    """Return a blob and where a row lies in it that the requests of these tests do not ask for."""
    table = next(t for t in Repository(model.repository).read_manifest(MODEL, 2).tables if t.name.startswith("users"))
    row = next(row for row in range(table.rows) if row not in model.inputs["user"])
    return table.blobs[row % table.buckets], row // table.buckets * table.row_bytes


def _flip_a_bit(path: Path, offset: int) -> None:
    """Damage the file where it is: whoever has mapped it sees that."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def _log(cluster: ProxiedCluster, server: str) -> str:
    return child(cluster, server).log_path.read_text("utf-8")


def test_a_bit_that_flips_after_the_load_is_found_and_the_blob_comes_from_a_replica(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(
        make=ProxiedCluster, shards=2, replicas=2, server_blob_dirs=True, server_arguments=_SCRUBBING
    )
    assert isinstance(cluster, ProxiedCluster)
    digest, offset = _digest_and_offset(small_model)
    path = cluster.blob_dir("server-0") / "blobs" / digest[:2] / digest
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        with load.fault("18", "a bit of a blob flips after it was loaded (all are read again every 2 s)") as fault:
            _flip_a_bit(path, offset)
            wait_until(lambda: _WRONG in _log(cluster, "server-0"), PATIENT_S)
            wait_until(lambda: path.exists() and digest_of(path.read_bytes()) == digest, PATIENT_S)
            fault.recovered()
            load.wait_for_answers(50)
        known = (f"--repository={small_model.repository}", "--rows=2000")
        wait_until(lambda: tessera_here("cluster", "check", *known, *flags(cluster)).returncode == 0, PATIENT_S)
    assert load.failures == []
    assert _WRONG not in _log(cluster, "server-1")


def test_a_bit_that_flips_in_the_repository_is_found_and_nothing_is_served_until_it_is_mended(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(small_model.repository, tmp_path / "own"))
    cluster = start_cluster(
        make=ProxiedCluster, shards=2, replicas=2, repository=repository, server_arguments=_SCRUBBING
    )
    assert isinstance(cluster, ProxiedCluster)
    digest, offset = _digest_and_offset(small_model)
    path = repository / "blobs" / digest[:2] / digest

    def answers() -> bool:
        try:
            return predict(channel, small_model.request()) == (small_model.expected[2], 2)
        except TesseraError:
            return False

    with open_channel(cluster.router_address) as channel:
        assert answers()
        _flip_a_bit(path, offset)
        wait_until(lambda: not answers(), PATIENT_S)
        wait_until(lambda: all(_WRONG in _log(cluster, name) for name in ("server-0", "server-1")), PATIENT_S)
        status = tessera_here("status", "-o", "json", *flags(cluster))
        assert digest in json.dumps(json.loads(status.stdout))
        _flip_a_bit(path, offset)
        wait_until(answers, PATIENT_S)
