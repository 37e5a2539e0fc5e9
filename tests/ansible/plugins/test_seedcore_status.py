from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import FAILED, HEALTHY, STARTING, Executable

Run = Callable[..., dict[str, Any]]
ALWAYS = {"healthy", "status", "reason", "message", "elapsed", "attempts", "coordinator", "nodes", "changed"}


def test_what_is_true_is_returned_and_is_no_failure(executable: Executable, run: Run) -> None:
    executable.prints(FAILED, rc=1)
    result = run("seedcore_status", executable=str(executable.path))
    assert result.keys() >= ALWAYS
    assert (result["healthy"], result["reason"], result["attempts"]) == (False, "init_failed", 1)
    assert (result["changed"], result.get("failed")) == (False, None)
    assert result["evidence"] == {"traceback": "Traceback: no such file"}


def test_check_mode_asks_as_well(executable: Executable, run: Run) -> None:
    executable.prints(HEALTHY)
    assert run("seedcore_status", check=True, executable=str(executable.path))["healthy"]


def test_a_host_without_the_executable_is_not_installed(tmp_path: Path, run: Run) -> None:
    result = run("seedcore_status", executable=str(tmp_path / "none"))
    assert (result["healthy"], result["reason"]) == (False, "not_installed")
    assert result["nodes"] == {"alive": 0, "expected": 0, "missing": [], "names": []}


def test_a_wrapper_without_a_release_is_not_installed(executable: Executable, run: Run) -> None:
    executable.write("sys.stderr.write('no SeedCore release is active under /opt/x'); sys.exit(3)")
    result = run("seedcore_status", executable=str(executable.path))
    assert result["reason"] == "not_installed"
    assert "no SeedCore release is active under /opt/x" in result["message"]


def test_waiting_ends_at_once_where_nothing_is_installed(tmp_path: Path, run: Run) -> None:
    result = run("seedcore_status", executable=str(tmp_path / "none"), wait=True, wait_timeout=30)
    assert result["failed"]
    assert result["attempts"] == 1
    assert result["msg"].startswith("not_installed: ")
    assert result["msg"].endswith("(after 0 s)")


def test_a_wait_is_the_executables_own(executable: Executable, run: Run) -> None:
    executable.prints({**HEALTHY, "attempts": 7})
    result = run("seedcore_status", executable=str(executable.path), wait=True, wait_timeout=30, wait_sleep=1)
    assert (result["healthy"], result["attempts"], result["changed"]) == (True, 7, False)
    ((arguments, _),) = executable.calls()
    assert arguments == ["status", "--json", "--wait", "--timeout", "30", "--interval", "1"]


def test_a_wait_fails_with_the_last_status(executable: Executable, run: Run) -> None:
    executable.prints(STARTING, rc=5)
    result = run("seedcore_status", executable=str(executable.path), wait=True, wait_timeout=1, wait_sleep=1)
    assert result["failed"]
    assert result.keys() >= ALWAYS
    assert result["msg"].startswith("starting: still initializing: 1 of 3 organs ready (after ")
    assert result["coordinator"] == STARTING["coordinator"]
    assert len(executable.calls()) == 1


def test_a_degraded_organism_is_judged_by_the_executable(executable: Executable, run: Run) -> None:
    executable.prints({**HEALTHY, "healthy": False, "degraded": True, "reason": "degraded"}, rc=1)
    assert run("seedcore_status", executable=str(executable.path), wait=True)["failed"]
    executable.prints({**HEALTHY, "degraded": True, "reason": "degraded"})
    assert run("seedcore_status", executable=str(executable.path), wait=True, allow_degraded=True)["healthy"]


def test_stability_and_the_canary_are_left_to_the_executable(executable: Executable, run: Run) -> None:
    executable.prints(HEALTHY)
    result = run("seedcore_status", executable=str(executable.path), wait=True, stable_s=5, canary=True)
    assert result["healthy"]
    ((arguments, _),) = executable.calls()
    assert arguments[arguments.index("--stable") + 1] == "5"
    assert "--canary" in arguments


def test_an_executable_that_does_not_end_its_wait_is_killed(executable: Executable, run: Run) -> None:
    executable.write("time.sleep(300)")
    result = run("seedcore_status", executable=str(executable.path), wait=True, wait_timeout=1, command_timeout=1)
    assert result["failed"]
    assert result["msg"].startswith(f"cli_failed: {executable.path} status did not answer within 2 s (after ")


def test_what_is_expected_reaches_the_executable(executable: Executable, run: Run) -> None:
    executable.prints(HEALTHY)
    run(
        "seedcore_status",
        executable=str(executable.path),
        expected_release="1.0-abc",
        expected_fingerprint="config",
        expected_nodes=3,
        expected_node_names=["head", "worker-1"],
        allow_degraded=True,
        namespace="mine",
        address="head:6379",
    )
    ((arguments, environ),) = executable.calls()
    assert arguments == [
        "status",
        "--json",
        "--expected-release",
        "1.0-abc",
        "--expected-fingerprint",
        "config",
        "--expected-nodes",
        "3",
        "--expected-node",
        "head",
        "--expected-node",
        "worker-1",
        "--only-expected",
        "--allow-degraded",
    ]
    assert (environ["RAY_NAMESPACE"], environ["RAY_ADDRESS"]) == ("mine", "head:6379")
    assert environ["SEEDCORE_OVERRIDE"] == "RAY_NAMESPACE=mine RAY_ADDRESS=head:6379"


@pytest.mark.parametrize(
    "options",
    [{"wait_timeout": -1}, {"wait_sleep": 0}, {"namespace": ""}, {"executable": ""}, {"expected_nodes": "many"}],
    ids=str,
)
def test_bad_arguments_fail_before_anything_runs(executable: Executable, run: Run, options: dict[str, Any]) -> None:
    executable.prints(HEALTHY)
    result = run("seedcore_status", **{"executable": str(executable.path), **options})
    assert result["failed"]
    assert next(iter(options)) in result["msg"]
    assert executable.calls() == []


def test_a_refused_option_is_a_failure_and_not_a_status(executable: Executable, run: Run) -> None:
    executable.write("sys.stderr.write('Error: No such option: --json'); sys.exit(2)")
    result = run("seedcore_status", executable=str(executable.path))
    assert result["failed"]
    assert (result["reason"], result["msg"]) == ("usage", "Error: No such option: --json")


@pytest.mark.parametrize("said", ["print('oops')", "print('[1, 2]')", "raise SystemError('broken')", "print('{}')"])
def test_an_executable_that_says_nonsense_is_reported(executable: Executable, run: Run, said: str) -> None:
    executable.write(said)
    result = run("seedcore_status", executable=str(executable.path))
    assert (result["healthy"], result["reason"], result.get("failed")) == (False, "cli_failed", None)


def test_an_executable_that_hangs_is_killed_with_its_children(executable: Executable, run: Run) -> None:
    pid_file = executable.path.parent / "pid"
    executable.write(f"""
        import subprocess
        child = subprocess.Popen(["sleep", "300"])
        open({str(pid_file)!r}, "w").write(str(child.pid))
        time.sleep(300)
    """)
    started = time.monotonic()
    result = run("seedcore_status", executable=str(executable.path), command_timeout=2)
    assert time.monotonic() - started < 30
    assert (result["healthy"], result["reason"]) == (False, "cli_failed")
    assert result["message"] == f"{executable.path} status did not answer within 2 s"
    child = int(pid_file.read_text())
    assert _ends(child)


def _ends(pid: int) -> bool:
    """Wait until a killed process is gone or a zombie."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
