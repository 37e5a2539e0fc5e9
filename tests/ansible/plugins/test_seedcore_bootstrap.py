from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import FAILED, HEALTHY, STARTING, Executable

Run = Callable[..., dict[str, Any]]


def outcome(report: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"action": "none", "changed": False, "attempts": 0, "cause": "", "status": report, **keys}


def test_a_coordinator_that_was_created_is_a_change(executable: Executable, run: Run) -> None:
    executable.prints(outcome(HEALTHY, action="create", changed=True, attempts=1))
    result = run("seedcore_bootstrap", executable=str(executable.path), wait_timeout=7, retries=1, replace=True)
    assert (result["changed"], result["action"], result["creations"], result["healthy"]) == (True, "create", 1, True)
    ((arguments, _),) = executable.calls()
    assert arguments == ["bootstrap", "--json", "--wait-timeout", "7", "--retries", "1", "--replace"]


def test_the_comparison_of_old_and_new_processes_is_passed_on_and_reported(executable: Executable, run: Run) -> None:
    line = "30 s, 412 tasks on new, 0 failed (old: 1 of 1,630)"
    executable.prints(outcome(HEALTHY, action="reload", changed=True, baked=line))
    result = run("seedcore_bootstrap", executable=str(executable.path), bake_seconds=30, bake_tolerance=0.25)
    assert result["baked"] == line
    ((arguments, _),) = executable.calls()
    assert arguments[-4:] == ["--bake", "30", "--bake-tolerance", "0.25"]


def test_a_coordinator_that_is_right_already_is_no_change(executable: Executable, run: Run) -> None:
    executable.prints(outcome(HEALTHY))
    result = run("seedcore_bootstrap", executable=str(executable.path))
    assert (result["changed"], result["action"]) == (False, "none")


def test_a_failure_has_the_cause_in_one_line_and_the_traceback_beside_it(executable: Executable, run: Run) -> None:
    executable.prints(outcome(FAILED, action="create", changed=True, attempts=3, cause="Traceback ..."), rc=1)
    result = run("seedcore_bootstrap", executable=str(executable.path))
    assert result["failed"]
    assert result["msg"].startswith("init_failed: agent a_agent_0 did not start: no such file (after ")
    assert (result["cause"], result["changed"], result["creations"]) == ("Traceback ...", True, 3)


def test_what_still_initializes_at_the_deadline_is_a_failure(executable: Executable, run: Run) -> None:
    executable.prints(outcome(STARTING, action="create", changed=True, attempts=1), rc=5)
    result = run("seedcore_bootstrap", executable=str(executable.path))
    assert result["failed"]
    assert "still initializing: 1 of 3 organs ready" in result["msg"]


@pytest.mark.parametrize(
    ("action", "changed"),
    [("none", False), ("create", True), ("replace", True)],
)
def test_check_mode_says_what_would_be_done(executable: Executable, run: Run, action: str, *, changed: bool) -> None:
    executable.prints(outcome(HEALTHY, action=action, changed=changed))
    result = run("seedcore_bootstrap", check=True, executable=str(executable.path))
    assert (result["action"], result["changed"]) == (action, changed)
    ((arguments, _),) = executable.calls()
    assert "--dry-run" in arguments


def test_check_mode_on_a_host_without_a_release_would_create(tmp_path: Path, run: Run) -> None:
    result = run("seedcore_bootstrap", check=True, executable=str(tmp_path / "none"))
    assert (result["action"], result["changed"], result.get("failed")) == ("create", True, None)


def test_check_mode_knows_the_release_that_is_about_to_be_active(executable: Executable, run: Run) -> None:
    executable.prints(outcome(HEALTHY))
    same = run("seedcore_bootstrap", check=True, executable=str(executable.path), expected_release="1.0-abc")
    other = run("seedcore_bootstrap", check=True, executable=str(executable.path), expected_release="1.1-def")
    assert (same["changed"], same["action"]) == (False, "none")
    assert (other["changed"], other["action"]) == (True, "replace")


@pytest.mark.parametrize(
    ("running", "expected", "action"),
    [
        ("1.0-abc.x", "1.0-abc.x", "none"),
        ("1.0-abc.x", "1.0-abc.y", "reload"),
        ("", "1.0-abc.y", "none"),
        ("1.0-abc.x,vision-1", "1.0-abc.x,text-1,vision-1", "none"),
        ("vision-1", "1.0-abc.y,vision-1", "none"),
        ("vision-1", "1.0-abc.y,vision-2", "reload"),
    ],
)
def test_check_mode_knows_the_agents_that_are_about_to_be_active(
    executable: Executable, run: Run, running: str, expected: str, action: str
) -> None:
    # An organism whose organs all run from the release reports none.
    coordinator: Any = HEALTHY["coordinator"]
    executable.prints(outcome({**HEALTHY, "coordinator": {**coordinator, "agents": running}}))
    found = run("seedcore_bootstrap", check=True, executable=str(executable.path), expected_agents=expected)
    assert (found["changed"], found["action"]) == (action != "none", action)


@pytest.mark.parametrize(
    "options",
    [{"wait_timeout": 0}, {"bake_seconds": -1}, {"bake_tolerance": "nan"}, {"retries": -1}, {"executable": " "}],
    ids=str,
)
def test_bad_arguments_fail_before_anything_runs(executable: Executable, run: Run, options: dict[str, Any]) -> None:
    executable.prints(outcome(HEALTHY))
    result = run("seedcore_bootstrap", **{"executable": str(executable.path), **options})
    assert result["failed"]
    assert next(iter(options)) in result["msg"]
    assert executable.calls() == []


def test_a_configuration_that_is_refused_is_the_message(executable: Executable, run: Run) -> None:
    executable.write("sys.stderr.write('organism.yaml:3:5: agent_count is -1'); sys.exit(2)")
    result = run("seedcore_bootstrap", executable=str(executable.path))
    assert result["failed"]
    assert (result["changed"], result["msg"]) == (False, "organism.yaml:3:5: agent_count is -1")
