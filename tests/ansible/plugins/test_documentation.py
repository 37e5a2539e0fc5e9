"""Test the documentation that ansible-doc shows for the collection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.plugins.conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def ansible_doc(kind: str, *names: str) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-doc", "--json", "--type", kind, *names],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_module_is_documented() -> None:
    names = {f"seedcore.cluster.{path.stem}" for path in (ROOT / "plugins" / "modules").glob("*.py")}

    found = ansible_doc("module", *names)

    assert found.keys() == names
    assert all(entry["doc"]["short_description"] and entry["examples"] for entry in found.values())


def test_every_role_is_documented() -> None:
    names = {f"seedcore.cluster.{role}" for role in ROLES}

    found = ansible_doc("role", *names)

    assert found.keys() == names
    for entry in found.values():
        assert all(point["short_description"] for point in entry["entry_points"].values())


@pytest.mark.parametrize("role", ROLES)
def test_each_variable_of_a_role_is_documented_and_each_that_is_documented_is_there(role: str) -> None:
    directory = ROOT / "roles" / role
    defaults = yaml.safe_load((directory / "defaults" / "main.yml").read_text())
    spec = yaml.safe_load((directory / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]

    required = {name for name, option in spec.items() if option.get("required")}
    assert spec.keys() - required == defaults.keys()
    assert not required & defaults.keys()
