"""Test the alert rules in simulated time, and the dashboard's file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import dashboard

ROOT = Path(__file__).parents[2]
RULES = ROOT / "roles" / "monitoring" / "files" / "rules.yml"
CASES = Path(__file__).parent / "rules_test.yml"
Rule = dict[str, Any]


def rules() -> list[Rule]:
    found: list[Rule] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


def promtool(verb: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", verb, "rules", path], capture_output=True, text=True, check=False, timeout=60)


def prove(path: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the cases against a file of rules."""
    cases = directory / "cases.yml"
    cases.write_text(CASES.read_text().replace("RULES", str(path)))
    return promtool("test", cases)


def scaled(pattern: str, factor: float, text: str) -> str:
    return re.sub(pattern, lambda found: f"{float(found[0]) * factor:g}", text)


def breaks(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield a name and a changed rule for each possible error in a rule."""
    expression = rule["expr"]
    yield "never", {**rule, "expr": f"({expression}) and vector(1) == 0"}
    yield "always", {**rule, "expr": f"({expression}) or vector(1)"}
    yield "other labels", {**rule, "labels": {"severity": "info"}}
    yield "other words", {**rule, "annotations": {"summary": "Something is wrong"}}
    yield "for longer", {**rule, "for": "15m"}
    yield "at once", {key: value for key, value in rule.items() if key != "for"}
    for word, limit, window in (("less", 0.7, 0.2), ("more", 1.5, 3)):
        yield f"{word} than", {**rule, "expr": scaled(r"(?<=[<>=] )[\d.]+", limit, expression)}
        yield f"{word} time", {**rule, "expr": scaled(r"(?<=\[)\d+(?=m\])", window, expression)}


BROKEN = [
    pytest.param(rule["alert"], broken, id=f"{rule['alert']}-{how}")
    for rule in rules()
    for how, broken in breaks(rule)
    if broken != rule
]


def test_each_alert_fires_when_it_should_and_not_sooner(tmp_path: Path) -> None:
    for done in (promtool("check", RULES), prove(RULES, tmp_path)):
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("alert", "broken"), BROKEN)
def test_a_broken_rule_is_seen(alert: str, broken: Rule, tmp_path: Path) -> None:
    others = [rule for rule in rules() if rule["alert"] != alert]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "seedcore", "rules": [*others, broken]}]}))

    done = prove(path, tmp_path)

    assert done.returncode != 0, done.stdout
    # A valid rule with another meaning, not one that cannot be parsed.
    assert re.search(rf"alertname: {alert}, .*exp:", done.stdout + done.stderr, re.DOTALL), done.stdout + done.stderr


def test_the_dashboard_is_what_its_code_makes() -> None:
    assert dashboard.TARGET.read_text() == dashboard.text(), "run `make docs` and commit what it writes"
