"""Write the Grafana dashboard of the role monitoring: python -m scripts.dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seedcore.coordinator.http.metrics import METRICS, Panel

TARGET = Path(__file__).parents[1] / "roles" / "monitoring" / "files" / "seedcore.json"
SOURCE = {"type": "prometheus", "uid": "seedcore"}
WIDTH = 24
# Panels of Ray's own metrics; each SeedCore metric declares its panels itself.
PANELS_OF_RAY = (
    Panel("state-timeline", "The nodes", "Nodes", 12, {'up{job="ray"}': "{{node}}"}),
    Panel("timeseries", "The nodes", "CPU", 12, {"ray_node_cpu_utilization": "{{node}}"}, "percent"),
    Panel(
        "timeseries", "The nodes", "Memory", 8, {"ray_node_mem_used / ray_node_mem_total": "{{node}}"}, "percentunit"
    ),
)
ROWS = ("The organism", "Tasks", "The nodes")


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    # Current values come before time series.
    declared = sorted(
        (*PANELS_OF_RAY, *(panel for metric in METRICS for panel in metric.panels)),
        key=lambda panel: panel.kind != "stat",
    )
    for title in dict.fromkeys([*ROWS, *(panel.row for panel in declared)]):
        panels.append(_placed({"type": "row", "title": title, "collapsed": False}, len(panels), 0, y, WIDTH, 1))
        x, y = 0, y + 1
        height = 0
        for panel in (panel for panel in declared if panel.row == title):
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            height = 4 if panel.kind == "stat" else 8
            panels.append(_placed(_panel(panel), len(panels), x, y, panel.width, height))
            x += panel.width
        y += height
    return {
        "uid": "seedcore",
        "title": "SeedCore",
        "tags": ["seedcore", "ray"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [_alerts()]},
        "panels": panels,
    }


def text() -> str:
    """Return the content of the dashboard file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _placed(panel: dict[str, Any], number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:  # noqa: PLR0917
    return {**panel, "id": number + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(declared: Panel) -> dict[str, Any]:
    title, kind = declared.title, declared.kind
    panel: dict[str, Any] = {
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(declared.queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": declared.unit, "min": 0}, "overrides": []},
    }
    if kind == "stat":
        panel["options"] = {
            "colorMode": "value" if title == "Healthy" else "none",
            "textMode": "name" if title == "Release" else "value",
        }
    if title == "Healthy":
        panel["fieldConfig"]["defaults"]["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": "red", "value": None}, {"color": "green", "value": 1}],
        }
    if kind == "state-timeline":
        words = {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}}
        if title == "Status":
            words = {"0": {"text": " ", "color": "transparent"}, "1": {"text": "is", "color": "blue"}}
        panel["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": words}]
    return panel


def _alerts() -> dict[str, Any]:
    """Return the annotation that marks on every panel when an alert was firing."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{node}} {{organ_id}}",
    }


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
