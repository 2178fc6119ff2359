"""The dashboard, the alerts and the operations page: they ask only for metrics that there are."""

import json
import re
from typing import Any

import yaml

from tests.observability.scrape import scrape
from tests.support.gateway import Gateway
from tests.support.processes import ROOT

DASHBOARD = ROOT / "monitoring" / "grafana-dashboard.json"
ALERTS = ROOT / "monitoring" / "alerts.yml"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """Every PromQL expression, by where it stands."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found[f"${variable['name']}"] = variable["query"]["query"]
    return found | {rule["alert"]: rule["expr"] for rule in alerts()}


def used() -> set[str]:
    """The metrics in the dashboard and the alerts, as they are called without what Prometheus adds to their names."""
    named = {name for text in expressions().values() for name in re.findall(r"\b(?:gateway|process)_\w+", text)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}


def test_each_metric_is_shown_somewhere(default_gateway: Gateway) -> None:
    """And what is shown is there; tests/delivery asks every query of a real Prometheus."""
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in scrape(default_gateway).families
        if not family.name.startswith("python_")
    }
    assert {name for name in families if name.startswith("gateway_")} <= used() <= families


def test_the_dashboard_can_be_imported() -> None:
    """The data source is a variable, no panel lies on another, and each has an English title and a Korean line."""
    whole = dashboard()
    assert {"type": "datasource", "query": "prometheus"}.items() <= next(
        variable for variable in whole["templating"]["list"] if variable["name"] == "datasource"
    ).items()
    rows = [panel["title"] for panel in whole["panels"] if panel["type"] == "row"]
    assert rows == ["Is it well?", "What is slow?", "Who is to blame?", "Streaming", "Capacity"]
    ids = [panel["id"] for panel in whole["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in whole["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels():
        assert panel["title"].isascii(), panel["title"]
        assert re.search(r"[가-힣]", panel["description"]), panel["title"]
        assert "\n" not in panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_each_alert_says_what_it_means_and_what_to_do_first() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
        assert re.fullmatch(r"Gateway[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+[smh]", rule["for"]), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        assert "First:" in rule["annotations"]["description"], rule["alert"]


def test_the_operations_page_names_only_events_that_there_are() -> None:
    """As the program says them; those with a setting's name are sentences of their own."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = text.partition("| event | level | fields |")[2].partition("\n\n")[0]
    events = {event for cell in re.findall(r"^\| (`.*?) \|", table, re.M) for event in re.findall(r"`([^`]+)`", cell)}
    folders = ("chat", "common", "database", "handlers", "service", "upstream")
    source = "".join(path.read_text("utf-8") for name in folders for path in (ROOT / name).glob("*.py"))
    assert len(events) > 20
    assert not [event for event in events if f'"{event}"' not in source]


def test_the_operations_page_names_every_metric_and_every_alert() -> None:
    """And no metric or alert that is not there."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    names = {rule["alert"] for rule in alerts()}
    assert set(re.findall(r"\bGateway[A-Z][A-Za-z]+\b", text)) == names
    for name in used():
        assert f"`{name}" in text, name
