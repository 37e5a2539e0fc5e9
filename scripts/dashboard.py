"""Write the Grafana dashboard of the role monitoring: python -m scripts.dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "roles" / "monitoring" / "files" / "seedcore.json"
SOURCE = {"type": "prometheus", "uid": "seedcore"}
WIDTH = 24
RATE = "$__rate_interval"
MEAN = f"sum by (task_type) (rate(seedcore_task_duration_seconds_{{part}}[{RATE}]))"
# Title, unit, kind of panel, width of 24, and the queries with what their lines are called.
Panel = tuple[str, str, str, int, list[tuple[str, str]]]

ROWS: dict[str, list[Panel]] = {
    "The organism": [
        ("Healthy", "bool_yes_no", "stat", 4, [('seedcore_coordinator_status{status="healthy"}', "")]),
        ("Release", "none", "stat", 6, [("seedcore_release_info", "{{release}}")]),
        ("Up for", "s", "stat", 4, [("seedcore_uptime_seconds", "")]),
        ("Last start took", "s", "stat", 4, [("seedcore_init_seconds", "")]),
        ("Restarts in an hour", "none", "stat", 6, [("increase(seedcore_coordinator_restarts_total[1h])", "")]),
        ("Status", "none", "state-timeline", 12, [("seedcore_coordinator_status", "{{status}}")]),
        ("Organs", "none", "state-timeline", 12, [("seedcore_organ_ready", "{{organ_id}}")]),
    ],
    "Tasks": [
        (
            "Tasks",
            "ops",
            "timeseries",
            12,
            [(f"sum by (outcome) (rate(seedcore_tasks_total[{RATE}]))", "{{outcome}}")],
        ),
        (
            "Mean duration",
            "s",
            "timeseries",
            12,
            [(f"{MEAN.format(part='sum')} / {MEAN.format(part='count')}", "{{task_type}}")],
        ),
        (
            "Under way",
            "none",
            "timeseries",
            8,
            [("seedcore_tasks_in_flight", "all"), ("seedcore_organ_tasks_in_flight", "{{organ_id}}")],
        ),
        (
            "Queued, as a part of the bound",
            "percentunit",
            "timeseries",
            8,
            [("seedcore_organ_tasks_queued / seedcore_organ_queue_limit", "{{organ_id}}")],
        ),
        (
            "Agents ready",
            "percentunit",
            "timeseries",
            8,
            [("seedcore_organ_agents_ready / seedcore_organ_agents", "{{organ_id}}")],
        ),
    ],
    "The nodes": [
        ("Nodes", "none", "state-timeline", 12, [('up{job="ray"}', "{{node}}")]),
        ("CPU", "percent", "timeseries", 12, [("ray_node_cpu_utilization", "{{node}}")]),
        ("Memory", "percentunit", "timeseries", 8, [("ray_node_mem_used / ray_node_mem_total", "{{node}}")]),
        (
            "Disk free",
            "percentunit",
            "timeseries",
            8,
            [("seedcore_node_disk_free_bytes / seedcore_node_disk_size_bytes", "{{node_name}} {{path}}")],
        ),
        (
            "Processes replaced in an hour",
            "none",
            "timeseries",
            8,
            [("increase(seedcore_organ_restarts_total[1h])", "{{organ_id}}")],
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(_placed({"type": "row", "title": title, "collapsed": False}, len(panels), 0, y, WIDTH, 1))
        x, y = 0, y + 1
        height = 0
        for name, unit, kind, width, queries in row:
            if x + width > WIDTH:
                x, y = 0, y + height
            height = 4 if kind == "stat" else 8
            panels.append(_placed(_panel(name, unit, kind, queries), len(panels), x, y, width, height))
            x += width
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
    """Return the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _placed(panel: dict[str, Any], number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:  # noqa: PLR0917
    return {**panel, "id": number + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(title: str, unit: str, kind: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    panel: dict[str, Any] = {
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
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
    """Mark on every panel when an alert was firing."""
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
