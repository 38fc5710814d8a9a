"""Alert rules, dashboards and runbooks as they are in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from router.metrics import RouterCollector
from shard_server.metrics import ShardServerCollector
from support.k8s_objects import K8S, ROOT, Object, read
from support.router_statistics import router_statistics
from support.shard_server_statistics import shard_server_statistics
from tessera.metric_families import MetricsText

COMPONENT = K8S / "components" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
RUNBOOK_URL = "https://docs.example.com/tessera/runbooks/"
TARGET_LABELS = frozenset({"namespace", "job", "instance"})
"""What Prometheus puts on everything that it scrapes here."""

RuleObject = Mapping[str, Any]


def groups() -> list[Object]:
    """Return the groups of all rule objects: together they are a rule file of Prometheus."""
    return [
        group
        for path in sorted((COMPONENT / "rules").iterdir())
        for content in read(str(path.relative_to(K8S)))
        for group in content["spec"]["groups"]
    ]


def rule_file() -> str:
    """Return a rule file for Prometheus itself (JSON, which is YAML)."""
    return json.dumps({"groups": groups()}, indent=2)


def rules() -> list[Object]:
    """Return all rules."""
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> dict[str, Object]:
    """Return name → rule of every alert."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def dashboards() -> Mapping[str, Any]:
    """Return file name → dashboard. Not to be changed."""
    paths = sorted((COMPONENT / "dashboards").iterdir())
    return {path.name: json.loads(path.read_text("utf-8")) for path in paths}


def panel_expressions(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (title, expression) of every query of a dashboard, with Grafana's variables replaced."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], without_variables(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], without_variables(annotation["expr"])


def without_variables(expression: str) -> str:
    """Return an expression as Grafana sends it when all is chosen."""
    expression = expression.replace("$__rate_interval", "5m")
    for name in ("namespace", "model", "instance"):
        expression = expression.replace(f"${name}", ".*")
    return expression


@cache
def scraped_labels() -> Mapping[str, frozenset[str]]:
    """Return name of a sample → its labels, of everything that a router and a shard server can tell."""
    collectors = (
        RouterCollector(router_statistics, "0.1.0").collect,
        ShardServerCollector(shard_server_statistics, "0.1.0").collect,
    )
    found: dict[str, frozenset[str]] = {}
    for collect in collectors:
        text = MetricsText(collect)().decode()
        told = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # The library's parser puts `_total` behind counters that have none.
                name = sample.name if sample.name in told else sample.name.removesuffix("_total")
                assert name in told
                found[name] = found.get(name, frozenset()) | sample.labels.keys()
    return found
