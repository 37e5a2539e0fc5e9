"""Test which variables of other roles a role may use."""

from __future__ import annotations

import re

import pytest

from tests.ansible.roles.test_habits import ROOT

ROLES = sorted(path.name for path in ROOT.glob("roles/*"))
# Longest first, because seedcore_gate is not a variable of seedcore.
PRIVATE = re.compile(rf"\b__({'|'.join(sorted(ROLES, key=len, reverse=True))})(?:_\w+)?\b")
NAMED = re.compile(r"seedcore\.cluster\.(\w+)\s+tasks_from|_role:\s+name: seedcore\.cluster\.(\w+)")


def private_names(directory: str) -> dict[str, set[str]]:
    """Return the private variables that files in a directory mention, by their role."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / directory).rglob("*"):
        if path.suffix in {".yml", ".j2"}:
            for match in PRIVATE.finditer(path.read_text()):
                found.setdefault(match[1], set()).add(match[0])
    return found


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_what_another_one_calls_its_own(role: str) -> None:
    assert private_names(f"roles/{role}").keys() <= {role}


def test_no_playbook_reads_what_a_role_calls_its_own() -> None:
    assert private_names("playbooks") == {}


def test_the_deployment_is_below_the_other_roles() -> None:
    used = {
        name
        for path in (ROOT / "roles/deployment").rglob("*.yml")
        for names in NAMED.findall(path.read_text())
        for name in names
    }
    assert "deployment" in ROLES
    assert used - {""} == set()


def test_a_path_in_a_variable_is_the_same_whichever_role_reads_it() -> None:
    # role_path is the directory of the role whose task is running.
    paths = [
        (str(path.relative_to(ROOT)), found)
        for path in ROOT.glob("roles/*/vars/**/*.yml")
        for found in re.findall(r"role_path ~ '([^']*)", path.read_text())
    ]

    assert len(paths) > 5
    assert [entry for entry in paths if not entry[1].startswith("/../")] == []


def test_a_file_of_tasks_is_read_in_one_go() -> None:
    lines = {path.relative_to(ROOT): path.read_text().count("\n") for path in ROOT.glob("roles/*/tasks/*.yml")}

    assert len(lines) > 60
    assert {path: number for path, number in lines.items() if number > 90} == {}
