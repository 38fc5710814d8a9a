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
            repository = settings.pop("repository", small_model.repository)
            settings["router_arguments"] = ("--metrics-port=0", *settings.pop("router_arguments", ()))
            return stack.enter_context(run_cluster(tmp_path, repository, **settings))

        yield start
