"""Test the action plugins in a real run of ansible-playbook against this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import COLLECTIONS, FAILED, HEALTHY, STARTING, Executable

ABSENT = {**FAILED, "reason": "absent", "message": "there is no Coordinator", "evidence": {}}


class Play:
    """Runs one task in a separate play."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, module: str, *arguments: str, **options: Any) -> tuple[int, str]:
        path = self.directory / "play.json"
        configuration = self.directory / "ansible.cfg"
        configuration.write_text("[defaults]\ninternal_poll_interval = 0.005\n")
        task = {f"seedcore.cluster.{module}": options, "register": "result"}
        path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", *arguments, str(path)],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(configuration),
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_LOCALHOST_WARNING": "false",
                "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
                "ANSIBLE_HOME": str(self.directory / "home"),
                "ANSIBLE_ASYNC_DIR": str(self.directory / "jobs"),
                "NO_COLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


# A wait that ends after its status has been read this often.
_WAIT = """
    asked = lambda: sum("--wait" not in line for line in open(os.path.join(here, "calls")))
    if "--while-healthy" in sys.argv:
        print(json.dumps({stages!r}[0]))
    elif "--wait" in sys.argv:
        while asked() < 4:
            time.sleep(0.1)
        print(json.dumps({last!r}))
    else:
        print(json.dumps({stages!r}[min(asked(), 4) - 1]))
"""


def test_a_wait_shows_each_new_stage_once(play: Play, executable: Executable) -> None:
    later = {**STARTING, "message": "2 of 3 organs ready"}
    executable.write(_WAIT.format(last=HEALTHY, stages=[STARTING, STARTING, later, later]))
    rc, screen = play.run("seedcore_status", executable=str(executable.path), wait=True, wait_sleep=1, wait_timeout=60)
    assert rc == 0, screen
    assert screen.count("[localhost] initializing: 1 of 3 organs ready (") == 1
    assert screen.count("[localhost] initializing: 2 of 3 organs ready (") == 1
    assert "changed=0" in screen
    assert sum("--wait" in arguments for arguments, _ in executable.calls()) == 2, "the watch, then the wait"
    assert list((play.directory / "jobs").iterdir()) == []


def test_what_is_healthy_is_watched_by_one_command_without_a_job(play: Play, executable: Executable) -> None:
    executable.prints(HEALTHY)
    rc, screen = play.run("seedcore_status", executable=str(executable.path), wait=True, stable_s=5)
    assert rc == 0, screen
    ((arguments, _),) = executable.calls()
    assert (arguments[arguments.index("--stable") + 1], arguments[-1]) == ("5", "--while-healthy")
    assert screen.count("[localhost] healthy: ") == 1
    assert not (play.directory / "jobs").exists()


def test_a_release_that_cannot_watch_is_waited_for(play: Play, executable: Executable) -> None:
    executable.write(f"""
        if "--while-healthy" in sys.argv:
            sys.stderr.write("Error: No such option: --while-healthy")
            sys.exit(2)
        print(json.dumps({HEALTHY!r}))
    """)
    rc, screen = play.run("seedcore_status", executable=str(executable.path), wait=True)
    assert rc == 0, screen
    assert "--while-healthy" not in screen


def test_a_wait_that_is_over_fails_with_one_line(play: Play, executable: Executable) -> None:
    executable.prints(STARTING, rc=5)
    rc, screen = play.run("seedcore_status", executable=str(executable.path), wait=True, wait_sleep=1, wait_timeout=2)
    assert rc != 0
    assert "starting: still initializing: 1 of 3 organs ready (after " in screen


def test_a_wait_for_what_is_not_installed_ends_at_once_and_leaves_nothing(play: Play, tmp_path: Path) -> None:
    rc, screen = play.run("seedcore_status", executable=str(tmp_path / "none"), wait=True, wait_timeout=60)
    assert rc != 0
    assert "not_installed: " in screen
    assert not (play.directory / "jobs").exists()


def test_bad_arguments_of_a_wait_fail_before_anything_runs(play: Play, executable: Executable) -> None:
    executable.prints(HEALTHY)
    rc, screen = play.run("seedcore_status", executable=str(executable.path), wait=True, wait_timeout=-1)
    assert rc != 0
    assert "wait_timeout is -1, expected 1 or more" in screen
    assert executable.calls() == []


def test_a_bootstrap_shows_what_comes_up_and_returns_what_it_did(play: Play, executable: Executable) -> None:
    done = {"action": "create", "changed": True, "attempts": 1, "cause": "", "status": HEALTHY}
    executable.write(f"""
        asked = lambda: open(os.path.join(here, "calls")).read().count('"status"')
        if sys.argv[1] == "status":
            print(json.dumps({ABSENT!r} if asked() == 1 else {STARTING!r}))
        else:
            while asked() < 3:
                time.sleep(0.1)
            print(json.dumps({done!r}))
    """)
    rc, screen = play.run("seedcore_bootstrap", executable=str(executable.path))
    assert rc == 0, screen
    assert screen.count("[localhost] initializing: 1 of 3 organs ready (") == 1
    assert "there is no Coordinator" not in screen, "that is the past"
    assert "changed=1" in screen
    assert list((play.directory / "jobs").iterdir()) == []


def test_a_bootstrap_that_fails_says_why(play: Play, executable: Executable) -> None:
    document = {"action": "create", "changed": True, "attempts": 3, "cause": "Traceback", "status": FAILED}
    executable.write(
        f"print(json.dumps({document!r})) if sys.argv[1] == 'bootstrap' else print(json.dumps({ABSENT!r}))"
    )
    rc, screen = play.run("seedcore_bootstrap", executable=str(executable.path))
    assert rc != 0
    assert "init_failed: agent a_agent_0 did not start: no such file (after " in screen


def test_evidence_is_shown_and_kept_in_a_file_for_its_owner(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "state" / "evidence.txt"
    log = tmp_path / "a.log"
    log.write_text("the last words\n")
    rc, screen = play.run("seedcore_evidence", files=[str(log)], path=str(path), report=FAILED)
    assert rc == 0, screen
    assert f"==> {log}\nthe last words\n" in screen
    assert "init_failed: agent a_agent_0 did not start: no such file\n" in screen
    assert "the last words" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["evidence.txt"]


def test_evidence_that_cannot_be_written_is_on_the_screen_and_hides_no_cause(play: Play, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number}\n" for number in range(30)))
    rc, screen = play.run("seedcore_evidence", files=[str(log)], path="/proc/seedcore/evidence.txt", report=FAILED)

    assert rc == 0
    assert "line 0" in screen
    assert "Traceback: no such file" in screen
    assert "cannot write the evidence to /proc/seedcore/evidence.txt" in " ".join(screen.split())
