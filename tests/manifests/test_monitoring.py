"""Rules and dashboard ask for what the server exports, are PromQL, and fire when they should."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import ROOT

Documents = list[dict[str, Any]]
SERVING_PYTHON = ROOT / ".venvs" / "serving" / "bin" / "python"
EXPORTED = """
import json
from prometheus_client import Histogram
from tidemill.serving.metrics import Metrics

metrics = Metrics("lending")
found = {}
for metric in vars(metrics).values():
    if hasattr(metric, "_labelnames"):
        labelled = metric.labels(*["x"] * len(metric._labelnames)) if metric._labelnames else metric
        if isinstance(metric, Histogram):
            labelled.observe(1)
for family in metrics.registry.collect():
    for sample in family.samples:
        found.setdefault(sample.name, set()).update(sample.labels)
print(json.dumps({name: sorted(labels) for name, labels in found.items()}))
"""
# What Prometheus adds to a target of ours (monitoring/scrape.yaml).
TARGET_LABELS = {"namespace", "pod", "inferenceservice"}
# Metrics of others, with the labels that we use: kubelet's, kube-state-metrics', Kueue's.
OTHERS = {
    "kubelet_volume_stats_available_bytes": {"namespace", "persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"namespace", "persistentvolumeclaim"},
    "kube_job_status_failed": {"namespace", "job_name"},
    "kueue_pending_workloads": {"cluster_queue", "status"},
}
WORDS = {
    *("sum", "max", "by", "rate", "increase", "histogram_quantile", "and", "label_values"),
}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The metrics of the real server with their labels."""
    if not SERVING_PYTHON.exists():
        pytest.skip("no serving environment: make setup")
    done = subprocess.run([str(SERVING_PYTHON), "-c", EXPORTED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: set(labels) | TARGET_LABELS for name, labels in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def rules(rendered: dict[str, Documents]) -> dict[str, Any]:
    (document,) = (d for d in rendered["overlays/prod"] if d["kind"] == "PrometheusRule")
    return document["spec"]


@pytest.fixture(scope="module")
def dashboard(rendered: dict[str, Documents]) -> dict[str, Any]:
    (text,) = (
        d["data"]["tidemill.json"]
        for d in rendered["overlays/prod"]
        if d["kind"] == "ConfigMap" and d["metadata"]["labels"].get("grafana_dashboard") == "1"
    )
    return json.loads(text)


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def recorded(rules: dict[str, Any]) -> dict[str, set[str]]:
    return {
        rule["record"]: set(re.findall(r"\w+", re.search(r"by \(([^)]*)\)", rule["expr"])[1])) - {"le"}
        for group in rules["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def unknown(expression: str, metrics: dict[str, set[str]]) -> list[str]:
    """Returns the metrics of a PromQL expression that nobody exports, and the labels that they don't have."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    named = set(re.findall(r"(?<![\w$])[a-zA-Z_][\w:]*", re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)))
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", bare) for label in re.findall(r"\w+", group)}
    requested = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!=|!~|=)", bare))
    known = {name for name in named if name in metrics}
    after = re.match(r"label_values\(.*, (\w+)\)$", bare)
    labels = grouped | requested | ({after[1]} if after else set())
    of_them = set().union(*(metrics[name] for name in known)) if known else set()
    return sorted((named - known - WORDS - labels) | (labels - of_them))


def test_every_metric_of_a_rule_is_exported(rules: dict[str, Any], exported: dict[str, set[str]]) -> None:
    metrics = {**exported, **recorded(rules), **OTHERS}
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert unknown(rule["expr"], metrics) == [], rule


def test_every_metric_of_the_dashboard_is_exported(
    dashboard: dict[str, Any], rules: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    metrics = {**exported, **recorded(rules)}
    asked = dict(queries(dashboard))
    assert len(asked) > 15
    for title, expression in asked.items():
        assert unknown(expression, metrics) == [], title


def test_what_the_server_exports_of_its_own_is_looked_at(
    dashboard: dict[str, Any], rules: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    looked_at = " ".join(expression for _, expression in queries(dashboard))
    looked_at += " ".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])
    families = {re.sub(r"_(total|created|bucket|sum|count)$", "", name) for name in exported}
    assert not [name for name in families if name.startswith("tidemill_serving_") and name not in looked_at]


def test_a_metric_or_label_that_nobody_exports_is_found(exported: dict[str, set[str]]) -> None:
    assert unknown("rate(tidemill_serving_request_total[5m])", exported) == ["tidemill_serving_request_total"]
    assert unknown('tidemill_serving_in_flight{route="predict"}', exported) == ["route"]
    assert unknown("sum by (endpoint) (tidemill_serving_in_flight)", exported) == ["endpoint"]
    assert unknown("label_values(tidemill_serving_in_flight, verison)", exported) == ["verison"]


def test_the_dashboard_is_whole(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    taken: set[tuple[int, int]] = set()
    for grid in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, "panels overlap"
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_says_what_to_do(rules: dict[str, Any]) -> None:
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == set(alert["annotations"])


def run_promtool(promtool: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(promtool), *arguments], capture_output=True, text=True, timeout=60)


def test_promtool_accepts_the_rules(promtool: Path, rules: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules))
    done = run_promtool(promtool, "check", "rules", str(path))
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout
    rules_of_no_sense = {"groups": [{"name": "a", "rules": [{"record": "b", "expr": "rate(c)"}]}]}
    path.write_text(yaml.safe_dump(rules_of_no_sense))
    assert run_promtool(promtool, "check", "rules", str(path)).returncode != 0


def test_the_dashboards_queries_are_promql(promtool: Path, dashboard: dict[str, Any], tmp_path: Path) -> None:
    expressions = [
        expression.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$inferenceservice", ".*")
        for _, expression in queries(dashboard)
        if not expression.startswith("label_values(")
    ]
    assert not [expression for expression in expressions if "$" in expression]
    asked = [{"record": f"asked:{number}", "expr": e} for number, e in enumerate(expressions)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    done = run_promtool(promtool, "check", "rules", str(path))
    assert done.returncode == 0, done.stderr


def test_alerts_fire_when_they_should_and_only_then(promtool: Path, rules: dict[str, Any], tmp_path: Path) -> None:
    """alerts.yaml plays series to the rules; every alert is played at least once firing."""
    cases = yaml.safe_load((Path(__file__).with_name("alerts.yaml")).read_text())
    fired = {
        alert["alertname"] for case in cases["tests"] for alert in case["alert_rule_test"] if alert.get("exp_alerts")
    }
    assert fired == {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    silent = json.loads(json.dumps(rules))
    for group in silent["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)  # `check rules` reads their templates; here it is about when
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(silent))
    cases["rule_files"] = ["rules.yaml"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(cases))
    done = run_promtool(promtool, "test", "rules", str(tmp_path / "alerts.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
