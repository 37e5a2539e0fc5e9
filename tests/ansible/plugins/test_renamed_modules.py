"""Test renamed modules: an old name works until release 0.3, with a warning that gives the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.plugins.conftest import ROOT
from tests.ansible.plugins.test_actions import Play

ROUTING = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]


@pytest.mark.parametrize(
    ("old", "new", "options"),
    [
        ("files", "managed_files", {"files": []}),
        ("applied", "deployment_record", {"path": "/nowhere/.applied", "fingerprint": "f"}),
        ("run_lock", "deployment_lock", {"prefix": "/nowhere"}),
    ],
)
def test_an_old_name_works_and_names_the_new_one(tmp_path: Path, old: str, new: str, options: dict[str, Any]) -> None:
    code, screen = Play(tmp_path).run(old, "--check", **options)

    assert code == 0, screen
    assert f"Use seedcore.cluster.{new} instead" in " ".join(screen.split())


def test_an_old_name_with_an_action_of_the_controller_still_runs_it() -> None:
    actions = {path.stem for path in (ROOT / "plugins/action").glob("*.py")}
    renamed = {old: entry["redirect"].rpartition(".")[2] for old, entry in ROUTING["modules"].items()}

    assert ROUTING["action"].keys() == {old for old, new in renamed.items() if new in actions}
