"""Alert rules and dashboards speak of metrics, labels and runbooks that are there. `make test-monitoring` runs them."""

import re
from typing import Any

import pytest

from support.k8s_objects import ROOT, labels, of_kind, one, pods, read, rendered, selects
from support.monitoring import (
    COMPONENT,
    RUNBOOK_URL,
    RUNBOOKS,
    TARGET_LABELS,
    alerts,
    dashboards,
    groups,
    panel_expressions,
    rules,
    scraped_labels,
)
from support.promql import names
from tessera.errors import Code

PROMETHEUS_OWN = {"up": TARGET_LABELS, "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity"}}
EXPRESSIONS = [
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()),
    *((f"{file}: {title}", text) for file, board in dashboards().items() for title, text in panel_expressions(board)),
]


def _known() -> dict[str, frozenset[str]]:
    """Return metric → its labels, of everything that an expression may name."""
    known = {**scraped_labels(), **PROMETHEUS_OWN}
    for rule in rules():
        if "record" in rule:
            found = names(rule["expr"])
            inner = frozenset(label for metric in found.metrics for label in known[metric])
            known[rule["record"]] = frozenset(found.grouped) or inner
    return known


KNOWN = _known()


def test_metrics_and_labels_are_there() -> None:
    for where, expression in EXPRESSIONS:
        found = names(expression)
        assert found.metrics or found.functions == {"vector"}, where
        there: set[str] = set(TARGET_LABELS)
        for metric, used in found.metrics.items():
            assert metric in KNOWN, where
            assert used <= KNOWN[metric] | TARGET_LABELS, where
            there |= KNOWN[metric]
        assert found.grouped <= there, where


def test_everything_that_a_rule_needs_is_documented() -> None:
    documented = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
    used = {metric for _, text in EXPRESSIONS for metric in names(text).metrics}
    ours = {name for name in used if name.startswith(("tessera_", ":tensorflow:"))}
    assert {
        re.sub(r"_(bucket|sum|count)$", "", name) if name not in documented else name for name in ours
    } <= documented
    assert len(ours) > 60


def test_names_that_an_expression_has() -> None:
    found = names(
        'sum by (a) (rate(x:y_total{b=~"c{d}",e!="f"}[5m])) / on (g) group_left (h) scalar(z) > 1e3 offset 5m'
    )
    assert found.metrics == {"x:y_total": {"b", "e"}, "z": set()}
    assert found.grouped == {"a", "g", "h"}
    assert found.functions == {"sum", "rate", "scalar"}
    with pytest.raises(AssertionError, match="not understood"):
        names("a ? b")


def test_every_alert_says_how_urgent_it_is_and_has_a_runbook() -> None:
    for name, rule in alerts().items():
        assert re.fullmatch(r"Tessera[A-Z]\w+", name)
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "runbook_url"}
        url = rule["annotations"]["runbook_url"]
        runbook = RUNBOOKS / url.removeprefix(RUNBOOK_URL)
        assert runbook.is_file(), url
        assert f"`{name}`" in runbook.read_text("utf-8"), f"{runbook.name} does not speak of {name}"


def test_labels_in_summaries_are_those_that_the_alert_has() -> None:
    for name, rule in alerts().items():
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        found = names(rule["expr"])
        kept = {label for metric in found.metrics for label in KNOWN[metric]} | TARGET_LABELS
        assert used <= kept, name
        if re.match(r"\(?\s*(sum|min|max|count)\b", rule["expr"]):
            assert used <= found.grouped, name


def test_rules_have_names_of_their_own() -> None:
    found = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(set(found)) == len(found)
    assert len({group["name"] for group in groups()}) == len(groups())


def test_codes_that_count_as_failed_are_codes() -> None:
    known = {code.name for code in Code}
    texts = [names_ for _, text in EXPRESSIONS for names_ in re.findall(r'status=~?"([A-Z_|]+)"', text)]
    assert texts
    for text in texts:
        assert set(text.split("|")) <= known


def test_values_of_labels_are_those_that_are_told() -> None:
    """A matcher with a value that no series can have is an alert that never fires."""
    from placement.records import OperationState

    values = {
        "state": {state.name for state in OperationState} | {"STOPPED"},
        "bound": {"max_enqueued_rows", "max_enqueued_bytes", "max_batch_size"},
        "status_code": {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"},
        "job": {"tessera-router", "tessera-shard"},
        "alertstate": {"firing"},
        "le": {"121439.5311"},
    }
    for _, text in EXPRESSIONS:
        for label, given in re.findall(r'(\w+)(?:=~?|!=)"([^"]*)"', text):
            if label in values:
                assert set(given.split("|")) <= values[label], text


def _panels(board: Any) -> list[Any]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("file", dashboards())
def test_dashboards_are_whole(file: str) -> None:
    board = dashboards()[file]
    assert file == f"{board['uid']}.json"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) == 23
    uids = {other["uid"] for other in dashboards().values()}
    assert {link["url"].removeprefix("/d/") for link in board["links"]} <= uids
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for panel in _panels(board):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables, panel["title"]
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            found = names(target["expr"].replace("$__rate_interval", "5m"))
            assert shown <= (found.grouped or {label for m in found.metrics for label in KNOWN[m]} | {"instance"})
    for variable in board["templating"]["list"][1:]:
        (metric,) = names(variable["query"]["query"]).metrics.keys() - {
            variable["name"],
            "instance",
            "model_name",
            "namespace",
        }
        assert metric in scraped_labels()


def test_the_dashboards_are_in_the_map_and_fit_into_it() -> None:
    (kustomization,) = read("components/monitoring/kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    files = {path.name for path in (COMPONENT / "dashboards").iterdir()}
    assert {path.removeprefix("dashboards/") for path in generator["files"]} == files
    # `kubectl apply` keeps a copy in an annotation, which has 256 KiB.
    assert sum((COMPONENT / "dashboards" / name).stat().st_size for name in files) < 240 << 10
    listed = {path for path in kustomization["resources"] if path.startswith("rules/")}
    assert listed == {f"rules/{path.name}" for path in (COMPONENT / "rules").iterdir()}


def test_what_is_scraped_has_the_port_and_the_jobs_of_the_rules() -> None:
    monitor = one(rendered("prod"), "ServiceMonitor", "tessera")
    (endpoint,) = monitor["spec"]["endpoints"]
    found = set()
    for service in of_kind(rendered("prod"), "Service"):
        if not selects(monitor["spec"]["selector"], labels(service)):
            continue
        if endpoint["port"] not in {port["name"] for port in service["spec"]["ports"]}:
            continue
        assert service["spec"]["clusterIP"] == "None", "every pod is to be scraped, not one of them"
        component = labels(service)["app.kubernetes.io/component"]
        found.add(endpoint["relabelings"][0]["replacement"].replace("$1", component))
    assert found == {"tessera-router", "tessera-shard"}
    jobs = {
        job for _, text in EXPRESSIONS for value in re.findall(r'job=~?"([^"]+)"', text) for job in value.split("|")
    }
    assert jobs == found
    assert any(name.startswith("StatefulSet") for name, _ in pods(rendered("prod")))
