import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from support.model_server import ModelServer, model_server
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
            repository = settings.pop("repository", small_model.repository)
            return stack.enter_context(run_cluster(tmp_path, repository, **settings))

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


@pytest.fixture(scope="session")
def half_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories half_plus_two (version 123) and half_plus_three (versions 1 and 2, which adds 13). Read-only."""
    from support.half_plus import half_plus  # imports TensorFlow

    root = tmp_path_factory.mktemp("half")
    half_plus(root / "half_plus_two" / "00000123", 2.0)
    half_plus(root / "half_plus_three" / "1", 3.0)
    half_plus(root / "half_plus_three" / "2", 13.0)
    return root


@pytest.fixture(scope="session")
def half_server(tmp_path_factory: pytest.TempPathFactory, half_models: Path) -> Iterator[ModelServer]:
    """A tensorflow_model_server with the model `half` (half_plus_two), for tests that break nothing."""
    arguments = ("--model_name=half", f"--model_base_path={half_models / 'half_plus_two'}")
    with model_server(tmp_path_factory.mktemp("half_server"), *arguments) as server:
        yield server
