"""Other people's machines and habits: what the roles say there, without a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(300)


def tasks() -> list[tuple[str, dict[str, Any]]]:
    """Every task of every role, with its file."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        pending = list(yaml.safe_load(path.read_text()) or [])
        while pending:
            task = pending.pop(0)
            pending += [*task.get("block", []), *task.get("rescue", []), *task.get("always", [])]
            found.append((str(path.relative_to(ROOT)), task))
    return found


def test_what_runs_on_the_controller_runs_as_whoever_started_it() -> None:
    # A variable ansible_become of an inventory beats become: false of a task.
    local = [(path, task) for path, task in tasks() if task.get("delegate_to") == "localhost"]

    assert local
    assert [path for path, task in local if (task.get("vars") or {}).get("ansible_become") is not False] == []


def test_packages_are_installed_where_there_are_no_lists_of_packages_yet(rendered: Callable[..., Any]) -> None:
    place = "head-1: ray/package: There is the package {{ __ray_package }}: args"

    assert rendered("ray", facts={"pkg_mgr": "apt"})[place]["update_cache"] is True
    assert "update_cache" not in rendered("ray", facts={"pkg_mgr": "zypper"})[place]
    # The age of a directory that somebody has just emptied says that the lists in it are new.
    assert not [path for path, task in tasks() if "cache_valid_time" in json.dumps(task)]


def test_the_group_is_the_one_that_the_user_has(rendered: Callable[..., Any]) -> None:
    facts = {"user_id": "bob", "user_gid": 100}
    mine = rendered("ray", facts=facts, ray_become=False)["head-1: ray: __ray_directories"]
    system = rendered("ray", facts=facts)["head-1: ray: __ray_directories"]

    assert {entry["group"] for entry in mine if "group" in entry} == {"100"}
    assert {entry["group"] for entry in system if "group" in entry} == {"ray"}


@pytest.mark.parametrize("code", [1, 217, 226])
def test_a_probe_that_fails_in_any_way_means_that_the_host_cannot(rendered: Callable[..., Any], code: int) -> None:
    found = rendered("service", known={"__service_private_users": {"rc": code}})

    assert found["head-1: service: __service_hardening"]["PrivateUsers"] is False
    place = "head-1: service/private_users: Whether the host lets a service have users of its own is known"
    assert found[place + ": {{ service_name }}: failed_when"] == [False]


def test_without_a_sandbox_the_host_is_not_asked_what_it_can(rendered: Callable[..., Any]) -> None:
    probe = [task for path, task in tasks() if task.get("ansible.builtin.include_tasks") == "private_users.yml"]

    assert len(probe) == 2
    assert all("service_hardening != 'none'" in task["when"] for task in probe)
    assert rendered("service", service_hardening="none")["head-1: service: __service_hardening"] == {}


def test_no_installation_lasts_for_ever() -> None:
    endless = [
        f"{path}: {task['name']}"
        for path, task in tasks()
        if any(word in json.dumps(task.get("ansible.builtin.command", "")) for word in ("venv", "install"))
        and "timeout" not in task
    ]
    assert endless == []
