"""Test the lock of a run: the error of a second run, and when the first run counts as ended."""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.action import deployment_lock as action

from tests.ansible.plugins.test_actions import Play

MODULE = "deployment_lock"
Run = Callable[..., dict[str, Any]]


def a_run(key: str) -> dict[str, Any]:
    return {"key": key, "who": f"{key} on a laptop", "pid": 4711}


@pytest.fixture
def prefix(tmp_path: Path, run: Run) -> Iterator[str]:
    path = str(tmp_path / "deployment")
    yield path
    Path(run(MODULE, prefix=path, state="absent", take=True)["path"]).unlink(missing_ok=True)


def test_the_second_run_is_told_who_is_at_work(run: Run, prefix: str) -> None:
    first = run(MODULE, prefix=prefix, run=a_run("alice"))
    again = run(MODULE, prefix=prefix, run=a_run("alice"))
    second = run(MODULE, prefix=prefix, run=a_run("bob"))

    assert (first["changed"], again["changed"]) == (False, False)
    assert Path(first["path"]).stat().st_mode & 0o777 == 0o600
    assert second["failed"]
    assert "another run works on this deployment (alice on a laptop, process 4711, started " in second["msg"]
    assert "-e ray_take_lock=true" in second["msg"]


def test_a_released_lock_leaves_nothing(run: Run, prefix: str) -> None:
    path = Path(run(MODULE, prefix=prefix, run=a_run("alice"))["path"])
    assert run(MODULE, prefix=prefix, run=a_run("bob"), state="absent")["changed"] is False
    assert path.exists(), "somebody else's lock is not released"

    run(MODULE, prefix=prefix, run=a_run("alice"), state="absent")

    assert not path.exists()
    assert not run(MODULE, prefix=prefix, run=a_run("bob")).get("failed")


def test_a_lock_that_is_not_renewed_ends(run: Run, prefix: str) -> None:
    run(MODULE, prefix=prefix, run=a_run("alice"), lease=1)
    time.sleep(1.1)  # the lease is what is tested

    assert not run(MODULE, prefix=prefix, run=a_run("bob")).get("failed")


def test_a_lock_can_be_taken_and_a_dead_run_has_none(run: Run, prefix: str) -> None:
    run(MODULE, prefix=prefix, run=a_run("alice"))
    assert not run(MODULE, prefix=prefix, run=a_run("bob"), dead="alice").get("failed")
    assert not run(MODULE, prefix=prefix, run=a_run("carol"), take=True).get("failed")
    assert run(MODULE, prefix=prefix, run=a_run("bob"))["failed"]


def test_check_mode_locks_nothing(run: Run, prefix: str) -> None:
    path = Path(run(MODULE, prefix=prefix, run=a_run("alice"), check=True)["path"])

    assert not path.exists()


def test_a_run_of_this_machine_that_has_ended_holds_nobody_up(prefix: str, tmp_path: Path) -> None:
    for _ in range(2):
        # Neither run releases its lock; the first has ended before the second begins.
        code, output = Play(tmp_path).run(MODULE, prefix=prefix)
        assert code == 0, output


def test_a_lock_is_no_link_of_somebody_elses(run: Run, prefix: str, tmp_path: Path) -> None:
    path = Path(run(MODULE, prefix=prefix, run=a_run("alice"))["path"])
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.unlink()
    path.symlink_to(precious)
    try:
        assert run(MODULE, prefix=prefix, run=a_run("alice"))["failed"]
        assert precious.read_text() == "precious"
    finally:
        path.unlink()


def test_nobody_but_who_deploys_can_hold_the_lock(run: Run, prefix: str) -> None:
    path = Path(run(MODULE, prefix=prefix, run=a_run("alice"))["path"])

    holder = path.parent.stat()

    assert (holder.st_uid, holder.st_mode & 0o022) == (os.geteuid(), 0), "others cannot make or open a file there"


def test_a_process_that_keeps_the_file_locked_holds_nobody_up_for_ever(run: Run, prefix: str) -> None:
    path = Path(run(MODULE, prefix=prefix, run=a_run("alice"))["path"])
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        failed = run(MODULE, prefix=prefix, run=a_run("alice"))
    assert failed["msg"] == f"{path} cannot be opened: another process keeps it open and locked"


def test_a_controller_that_is_no_linux_and_a_user_without_a_name_can_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(action, "Path", lambda *parts: Path("/nowhere", *(part.lstrip("/") for part in parts)))
    monkeypatch.setattr(action.getpass, "getuser", lambda: pwd.getpwuid(2**31 - 7).pw_name)
    ended = subprocess.Popen(["true"])
    ended.wait()

    alive, dead = action._key(os.getpid()), action._key(ended.pid)

    assert action._user() == f"user {os.getuid()}"
    assert (action._is_dead(alive, os.getpid()), action._is_dead(dead, ended.pid)) == (False, True)
