"""The alerts by themselves, and the dashboard's file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts import dashboard

ROOT = Path(__file__).parents[2]
RULES = ROOT / "roles" / "monitoring" / "files" / "rules.yml"


def test_each_alert_fires_when_it_should_and_not_sooner(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text((Path(__file__).parent / "rules_test.yml").read_text().replace("RULES", str(RULES)))

    for verb, path in (("check", RULES), ("test", cases)):
        done = subprocess.run(
            ["promtool", verb, "rules", path], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_what_its_code_makes() -> None:
    assert dashboard.TARGET.read_text() == dashboard.text(), "run `make docs` and commit what it writes"
