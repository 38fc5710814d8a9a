"""The Helm chart is what is made from the manifests, and its defaults are theirs."""

import re
import tomllib
from typing import Any

from support.k8s_chart import CHART, VALUES, at, base_name, chart, files
from support.k8s_objects import ROOT, rendered


def test_the_chart_is_made_from_the_manifests() -> None:
    made = files(rendered("chart"))
    there = {path: path.read_text("utf-8") for path in (*CHART.glob("templates/*"), CHART / "values.schema.json")}
    assert there == made, "run `make k8s-render`"


def test_defaults_are_those_of_the_manifests() -> None:
    found = set()
    for content in rendered("chart"):
        for kind, name, path, value in VALUES:
            if (kind, name) == (content["kind"], base_name(content["metadata"]["name"])):
                found.add((kind, name, path))
                assert str(at(chart("values.yaml"), tuple(value.split(".")))) == str(at(content, path)), value
    assert found == {entry[:3] for entry in VALUES}


def _leaves(values: Any, prefix: str = "") -> set[str]:
    if not isinstance(values, dict):
        return {prefix}
    return {leaf for key, value in values.items() for leaf in _leaves(value, f"{prefix}.{key}" if prefix else key)}


def test_every_value_is_used_and_every_used_value_is_there() -> None:
    texts = "\n".join(path.read_text("utf-8") for path in CHART.glob("templates/*.yaml"))
    assert set(re.findall(r"\.Values\.([A-Za-z.]+)", texts)) == _leaves(chart("values.yaml"))


def test_the_chart_has_the_version_of_the_software() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert chart("Chart.yaml")["appVersion"] == project["version"]
