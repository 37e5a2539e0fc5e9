"""Test that root changes nothing outside of a deployment whose user plants links wherever it can write."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can deploy for another user"),
    pytest.mark.skipif(
        subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"], check=False).returncode != 0,
        reason="/usr/bin/python3 cannot make virtual environments, and this one is root's alone",
    ),
]

# A name for this run alone, because another run may be in progress or may have been killed.
USER = f"scd-{os.getpid()}"


def state(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return owner, group, mode and content of a directory and everything in it."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_uid, status.st_gid, status.st_mode, content)
    return found


def writable(prefix: Path) -> list[Path]:
    """Return the directories of a deployment in which its user may create and rename files."""
    command = ["runuser", "-u", USER, "--", "find", str(prefix), "-type", "d", "-writable"]
    return [Path(line) for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()]


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """Provide an account that exists before the deployment."""
    made = subprocess.run(
        ["useradd", "--create-home", "--shell", "/bin/bash", USER], check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    yield USER
    subprocess.run(["userdel", "--remove", USER], check=False, capture_output=True)


@pytest.fixture(scope="module")
def hostile(make_deployment: Callable[..., Deployment], account: str) -> Deployment:
    deployment = make_deployment(ray_become=True, ray_user=account, ray_python="/usr/bin/python3")
    deployment.directory.chmod(0o755)
    # The umask of a hardened host; the user can still read the files that it needs.
    deployment.umask = 0o077
    deployment.run("deploy").check()
    return deployment


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Provide a directory of root with a file in it."""
    (tmp_path / "victim").mkdir(mode=0o755)
    (tmp_path / "victim" / "shadow").write_text("root:a-secret-hash\n")
    (tmp_path / "victim" / "shadow").chmod(0o600)
    return tmp_path / "victim"


def as_user(*argv: str) -> None:
    subprocess.run(["runuser", "-u", USER, "--", *argv], check=True, cwd="/")


def test_an_account_that_was_there_is_used_as_it_is(hostile: Deployment, account: str) -> None:
    entry = pwd.getpwnam(account)

    assert (entry.pw_dir, entry.pw_shell) == (f"/home/{account}", "/bin/bash")
    assert "made user" not in (hostile.prefix / ".seedcore").read_text()


def test_its_user_can_write_only_where_root_does_not_work(hostile: Deployment) -> None:
    tops = {path.relative_to(hostile.prefix).parts[:2] for path in writable(hostile.prefix)}

    assert {parts[0] if parts[0] == "tmp" else "/".join(parts) for parts in tops} == {
        "state/gcs",
        "state/home",
        "state/seedcore",
        "tmp",
    }


def test_links_of_its_user_lead_root_nowhere(hostile: Deployment, victim: Path) -> None:
    before = state(victim)
    logs = (hostile.prefix / "tmp" / "session_latest").resolve() / "logs"
    as_user("ln", "-sfn", f"{victim}/shadow", f"{logs}/worker-hostile.err")
    as_user("touch", "-h", f"{logs}/worker-hostile.err")
    for directory in writable(hostile.prefix):
        as_user("ln", "-sfn", str(victim), f"{directory}/planted")
        as_user("ln", "-sfn", f"{victim}/shadow", f"{directory}/.planted")

    run = hostile.run("deploy", seedcore_every_step=True).check()
    hostile.run("status").check()
    # Make the run fail, so that it reads the evidence.
    red = hostile.run("status", seedcore_gate_timeout=1, seedcore_node_names=["localhost", "not-there"])

    assert red.returncode != 0
    evidence = (hostile.directory / "evidence.txt").read_text()
    assert "worker-hostile.err" in evidence
    for text in (run.output, red.output, evidence):
        assert "a-secret-hash" not in text
    assert state(victim) == before


def test_teardown_removes_what_was_made_and_nothing_else(hostile: Deployment, victim: Path, account: str) -> None:
    before, entry = state(victim), pwd.getpwnam(account)
    as_user("ln", "-sfn", str(victim), f"{hostile.prefix}/state/home/victim")

    hostile.run("teardown", teardown_confirmed=True).check()

    assert not hostile.prefix.exists()
    assert state(victim) == before
    assert pwd.getpwnam(account) == entry
