"""The commands of k8s/README.md parse, and what they name is there."""

import re
import shlex

import pytest

from admin.cli import build_parser
from admin.k8s.command import complete
from support.k8s_objects import K8S, ROOT, one, read, rendered

README = (K8S / "README.md").read_text("utf-8")


def _commands() -> list[list[str]]:
    """Return the commands of all blocks, one for each part of a pipe."""
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).splitlines()
    parts = [part for line in lines if line.strip() for part in re.split(r" [|>] ", line)]
    return [shlex.split(part) for part in parts]


@pytest.mark.parametrize("words", [words for words in _commands() if words[0] == "tessera"], ids=" ".join)
def test_a_command_of_tessera_parses(words: list[str]) -> None:
    options = build_parser().parse_args(words[1:])
    if words[1:3] == ["k8s", "job"]:
        assert complete(options.words, tls=False)[: len(options.words)] == options.words


def test_what_kubectl_kind_and_helm_are_given_is_there() -> None:
    for words in _commands():
        for word in words:
            if word.startswith("k8s/") and "overlays/mine" not in word:
                assert (ROOT / word).exists(), word
            if match := re.fullmatch(r"(deployment|statefulset)/(.+)", word):
                one(rendered("prod"), {"deployment": "Deployment", "statefulset": "StatefulSet"}[match[1]], match[2])


def test_every_directory_is_listed() -> None:
    listed = set(re.findall(r"`([a-z-]+)`", README.split("Kubernetes 1.30")[0]))
    there = {
        path.parent.name for path in (*K8S.glob("components/*/kustomization.yaml"), *K8S.glob("overlays/*/*.yaml"))
    }
    assert there - listed == set()


def test_ports_are_those_of_the_manifests() -> None:
    for component, ports in (("router", (8500, 8501, 8502)), ("shard", (8600, 8601))):
        kind = {"router": "Deployment", "shard": "StatefulSet"}[component]
        (container,) = one(rendered("dev"), kind, f"tessera-{component}")["spec"]["template"]["spec"]["containers"]
        assert tuple(port["containerPort"] for port in container["ports"]) == ports
        assert all(str(port) in README for port in ports)


def test_the_minimum_is_that_of_the_chart() -> None:
    (chart,) = read("helm/tessera/Chart.yaml")
    (minimum,) = re.findall(r"Kubernetes (1\.\d+) or newer", README)
    assert chart["kubeVersion"] == f">={minimum}.0-0"
