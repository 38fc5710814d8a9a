import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from support.running import ClusterFactory, run_cluster
from support.small_model import SmallModel, make_small_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("small_model"))


@pytest.fixture
def start_cluster(tmp_path: Path, small_model: SmallModel) -> Iterator[ClusterFactory]:
    """Start clusters of real processes; they are gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> LocalCluster:
            return stack.enter_context(run_cluster(tmp_path, small_model.repository, **settings))

        yield start


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, small_model: SmallModel) -> Iterator[LocalCluster]:
    """One cluster for the tests of a module that break nothing."""
    with run_cluster(tmp_path_factory.mktemp("cluster"), small_model.repository) as cluster:
        yield cluster


@pytest.fixture
def private_run_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give `tessera up` a directory of its own, so that no cluster of this machine's user is found or found out."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
