"""`make test-k8s`: needs what `make k8s-tools` builds."""

from collections.abc import Callable, Iterator

import pytest

from support.k8s_control_plane import ControlPlane, control_plane
from support.k8s_objects import OVERLAYS


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as started:
        yield started


@pytest.fixture
def deploy(plane: ControlPlane) -> Iterator[Callable[[str], None]]:
    """Apply an overlay as a reader of k8s/README.md would; it is taken away at the end."""
    applied: set[str] = set()

    def apply(overlay: str) -> None:
        applied.add(str(OVERLAYS[overlay]))
        answer = plane.run("kubectl", "apply", "-k", str(OVERLAYS[overlay]))
        assert "Warning" not in answer.err, answer.err  # what pod security and old versions of objects cause

    yield apply
    # These first: the end of a namespace waits for what pods might take, however soon they are gone.
    plane.kubectl("delete", "deployments,statefulsets,cronjobs,jobs,pods", "--all")
    for directory in applied:
        plane.run("kubectl", "delete", "-k", directory, "--ignore-not-found")
    plane.run("kubectl", "delete", "pv", "--all")
