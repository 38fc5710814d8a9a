"""Runbooks: every alert has one, links lead somewhere, and what they tell to type parses."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.cli import build_parser
from admin.k8s.command import complete
from router.settings import RouterSettings
from shard_server.settings import ShardServerSettings
from support.k8s_objects import ROOT, one, pods, rendered
from support.monitoring import RUNBOOK_URL, RUNBOOKS, alerts, scraped_labels
from support.promql import names

PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
KUBECTL = {"create", "delete", "describe", "get", "logs", "port-forward", "rollout", "top"}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def _blocks(text: str, kind: str) -> list[str]:
    """Return the lines of all blocks of a kind."""
    found = "\n".join(re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    return [line for line in found.splitlines() if line]


def _commands(text: str) -> list[list[str]]:
    """Return the commands of blocks and of inline code, one for each part of a pipe."""
    lines = _blocks(text, "bash")
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if re.match(r"(tessera|kubectl|curl) \S+ ", code)]
    return [shlex.split(part) for line in lines if "…" not in line for part in line.split(" | ")]


@pytest.mark.parametrize("page", [*PAGES, RUNBOOKS / "README.md"], ids=lambda path: path.stem)
def test_commands_are_commands(page: Path) -> None:
    found = _commands(page.read_text("utf-8"))
    assert found
    for words in found:
        if words[0] == "tessera":
            options = build_parser().parse_args(words[1:])
            if words[1:3] == ["k8s", "job"]:
                assert complete(options.words, tls=False)[: len(options.words)] == options.words
        elif words[0] == "kubectl":
            assert next(word for word in words[1:] if word not in ("-n", "tessera")) in KUBECTL
            for word in words:
                if match := re.fullmatch(r"(deployment|statefulset)/(.+)", word):
                    kind = {"deployment": "Deployment", "statefulset": "StatefulSet"}[match[1]]
                    one(rendered("prod"), kind, match[2])
                elif match := re.fullmatch(r"app\.kubernetes\.io/component=(.+)", word):
                    components = {
                        pod["metadata"]["labels"].get("app.kubernetes.io/component")
                        for _, pod in pods((*rendered("prod"), *rendered("dev")))
                    }
                    assert match[1] in components | {"admin"}
        else:
            assert words[0] == "curl"


@pages
def test_a_page_has_the_three_parts_and_names_its_alerts(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What it means", "How to look", "What to do"]
    led_here = {
        name for name, rule in alerts().items() if rule["annotations"]["runbook_url"] == RUNBOOK_URL + page.name
    }
    assert led_here
    assert set(re.findall(r"`(Tessera\w+)`", text.split("## ")[0])) == led_here


def test_the_list_has_every_alert_with_its_urgency_and_page() -> None:
    text = (RUNBOOKS / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[(\S+)\]\((\S+)\) \|$", text, re.MULTILINE)
    expected = {
        (name, rule["labels"]["severity"], rule["annotations"]["runbook_url"].removeprefix(RUNBOOK_URL))
        for name, rule in alerts().items()
    }
    assert {(name, urgency, page) for name, urgency, page, _ in rows} == expected
    assert all(page == link for _, _, page, link in rows)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "page", [*PAGES, RUNBOOKS / "README.md", ROOT / "docs" / "metrics.md"], ids=lambda path: path.stem
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text("utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, titles), f"{target}#{anchor}"


@pages
def test_queries_and_metrics_and_flags_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    for query in _blocks(text, "promql"):
        assert names(query).metrics.keys() <= scraped_labels().keys(), query
    for metric in re.findall(r"`(tessera_\w+)`", text):
        assert metric in scraped_labels(), metric
    known = {*RouterSettings.__dataclass_fields__, *ShardServerSettings.__dataclass_fields__}
    for flag in re.findall(r"`--([a-z-]+)[^`]*`", text):
        assert flag.replace("-", "_") in known | {"keep", "dry_run"}, flag


def _constants() -> Iterator[str]:
    """Yield the texts in our code, but for docstrings; pieces of one text one by one."""
    for package in ("tessera", "placement", "shard_server", "router", "admin"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                    yield node.value


def test_texts_that_processes_say_are_in_the_code() -> None:
    constants = "\n".join(_constants())
    found = 0
    for page in PAGES:
        for title in ("it says", "it says, or shows", "the text says", "the check says"):
            table = page.read_text("utf-8").partition(f"| {title} | do |\n")[2]
            for cell in re.findall(r"^\| (.*?) \|", table.partition("\n\n")[0], re.MULTILINE):
                for piece in (piece.strip() for text in re.findall(r"`([^`]+)`", cell) for piece in text.split("…")):
                    found += 1
                    assert piece in constants, f"{page.name}: {piece}"
    assert found > 20
