"""What programs say of the manifests: kustomize, Helm, the schemas of several Kubernetes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.k8s_chart import CHART, base_name
from support.k8s_objects import OVERLAYS, Object, dump, jobs, parse, rendered
from support.k8s_render import render
from support.k8s_tools import TOOLS

MINORS = ("1.30", "1.33", "1.37")
_HELM = TOOLS / "bin" / "helm"


def _run(*words: object, stdin: str = "") -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(content["kind"], content["metadata"]["name"]): content for content in objects}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_rendered_files_are_those_that_kustomize_makes_now(overlay: str) -> None:
    assert _by_name(parse(render(OVERLAYS[overlay]))) == _by_name(list(rendered(overlay)))


def _is_builtin(content: Object) -> bool:
    group = content["apiVersion"].rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and group != "gateway.networking.k8s.io")


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("overlay", [*OVERLAYS, "jobs"])
def test_objects_have_the_schema_of_a_kubernetes(overlay: str, minor: str, tmp_path: Path) -> None:
    objects = jobs() if overlay == "jobs" else rendered(overlay)
    path = tmp_path / "objects.yaml"
    path.write_text(dump(*(content for content in objects if _is_builtin(content))), "utf-8")
    _run(TOOLS / "checks" / "bin" / "kubernetes-validate", "--strict", "-k", minor, path)


def test_a_mistake_is_found_by_the_schema(tmp_path: Path) -> None:
    (job, _) = jobs()
    path = tmp_path / "objects.yaml"
    path.write_text(dump({**job, "spec": {**job["spec"], "backofLimit": 1}}), "utf-8")
    with pytest.raises(AssertionError, match="backofLimit"):
        _run(TOOLS / "checks" / "bin" / "kubernetes-validate", "--strict", "-k", MINORS[0], path)


def _plain(content: Any) -> Any:
    """Return an object without what Helm and kustomize each add in their own way."""
    if isinstance(content, dict):
        drop = {"app.kubernetes.io/managed-by", "checksum/config"}
        kept = {key: _plain(value) for key, value in content.items() if key not in drop}
        if kept.get("annotations") == {}:
            del kept["annotations"]
        if isinstance(kept.get("name"), str):
            kept["name"] = base_name(kept["name"])
        if kept.get("image") == "registry.example.com/tessera:0.1.0":
            kept["image"] = "tessera"
        return kept
    return [_plain(item) for item in content] if isinstance(content, list) else content


def _chart(tmp_path: Path, namespace: str = "tessera", **changes: Any) -> list[Object]:
    """Return what Helm makes of the default values with `changes`, named as in shard__servers."""
    values: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        group, _, key = name.partition("__")
        values.setdefault(group, {})[key] = value
    path = tmp_path / "values.json"
    path.write_text(json.dumps(values), "utf-8")
    words = ("--namespace", namespace, "--values", path, "--kube-version", MINORS[0])
    return parse(_run(_HELM, "template", "tessera", CHART, *words))


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    _run(_HELM, "lint", "--strict", CHART)


def test_a_value_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="additional properties 'server' not allowed"):
        _chart(tmp_path, shard__server=7)
    with pytest.raises(AssertionError, match=r"/shard/servers.*want integer"):
        _chart(tmp_path, shard__servers="seven")


def test_the_chart_makes_the_objects_that_kustomize_makes(tmp_path: Path) -> None:
    expected = _by_name([_plain(content) for content in rendered("chart") if content["kind"] != "Namespace"])
    assert _by_name([_plain(content) for content in _chart(tmp_path)]) == expected


def test_values_reach_the_objects(tmp_path: Path) -> None:
    objects = _by_name(
        _chart(
            tmp_path,
            shard__servers=7,
            shard__memory="64Gi",
            shard__cacheClass="local",
            router__serviceType="LoadBalancer",
            etcd__enabled=False,
            image__digest="sha256:12",
            repository__storageClass="fast",
            networkPolicy__enabled=False,
        )
    )
    shards = objects["StatefulSet", "tessera-shard"]["spec"]
    (container,) = shards["template"]["spec"]["containers"]
    assert shards["replicas"] == 7
    assert shards["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "local"
    assert container["resources"]["limits"]["memory"] == "64Gi"
    assert container["image"] == "registry.example.com/tessera@sha256:12"
    assert objects["Service", "tessera-router"]["spec"]["type"] == "LoadBalancer"
    assert objects["PersistentVolumeClaim", "tessera-repository"]["spec"]["storageClassName"] == "fast"
    assert ("StatefulSet", "tessera-etcd") not in objects
    assert not [name for kind, name in objects if kind == "NetworkPolicy"]


def test_the_chart_goes_into_any_namespace(tmp_path: Path) -> None:
    text = dump(*_chart(tmp_path, "other"))
    assert "namespace: tessera" not in text
    assert "kubernetes.io/metadata.name: other" in text
