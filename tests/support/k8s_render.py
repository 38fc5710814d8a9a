"""Renders the manifests with kustomize: `make k8s-render` writes what the tests read, and the Helm chart.

The program is build/k8s-tools/bin/kubectl if `make k8s-tools` has made it, else the kubectl or kustomize on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import k8s_chart
from support.k8s_objects import INPUTS_DIGEST, OVERLAYS, RENDERED, ROOT, inputs_digest, parse

TOOLS = ROOT / "build" / "k8s-tools" / "bin"


def renderer() -> list[str] | None:
    """Return the command that renders a directory; None if there is no such program."""
    path = os.pathsep.join((str(TOOLS), os.environ.get("PATH", "")))
    for name, verb in (("kubectl", "kustomize"), ("kustomize", "build")):
        if found := shutil.which(name, path=path):
            return [found, verb]
    return None


def render(directory: Path) -> str:
    """Return what kustomize makes of a directory.

    Raises:
        FileNotFoundError: there is neither kubectl nor kustomize.
        subprocess.CalledProcessError: it is refused; stderr says why.
    """
    command = renderer()
    if command is None:
        raise FileNotFoundError("kubectl or kustomize: neither is on the PATH; `make k8s-tools` builds kubectl")
    done = subprocess.run([*command, str(directory)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> int:
    """Write tests/golden/k8s and the chart's templates anew."""
    RENDERED.mkdir(exist_ok=True)
    for name, directory in OVERLAYS.items():
        (RENDERED / f"{name}.yaml").write_text(render(directory), "utf-8")
    (RENDERED / INPUTS_DIGEST).write_text(f"{inputs_digest()}\n", "utf-8")
    templates = k8s_chart.CHART / "templates"
    templates.mkdir(parents=True, exist_ok=True)
    for old in templates.glob("*.yaml"):
        old.unlink()
    for path, text in k8s_chart.files(parse((RENDERED / "chart.yaml").read_text("utf-8"))).items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
