from __future__ import annotations

import json
import os
import pwd
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "deployment" / "files" / "host_report.py"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask what another user may do")


def report(prefix: Path, user: str = "", python: str = sys.executable) -> dict[str, Any]:
    done = subprocess.run(
        [python, PROGRAM, str(prefix), "0", "127.0.0.1", user], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """Provide a directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@needs_root
@pytest.mark.parametrize("user", ["nobody", "no-such-user-yet"])
def test_a_directory_that_the_user_of_the_services_may_not_enter_is_named(place: Path, user: str) -> None:
    (place / "closed").mkdir(mode=0o700)
    assert report(place / "closed" / "sc", user)["closed_prefix"] == str(place / "closed")
    (place / "closed").chmod(0o711)
    assert report(place / "closed" / "sc", user)["closed_prefix"] == ""
    (place / "closed").chmod(0o700)
    os.chown(place / "closed", pwd.getpwnam("nobody").pw_uid, -1)
    if user == "nobody":
        assert report(place / "closed" / "sc", user)["closed_prefix"] == ""


@needs_root
def test_a_python_that_the_user_of_the_services_cannot_run_is_named(place: Path) -> None:
    (place / "py").mkdir(mode=0o700)
    (place / "py" / "python3").symlink_to(Path(sys.executable).resolve())
    assert report(place, "nobody", str(place / "py" / "python3"))["closed_python"] == str(place / "py")


def test_who_runs_the_services_as_himself_is_not_asked(place: Path) -> None:
    assert report(place)["closed_prefix"] == ""


def test_what_was_made_with_a_python_that_is_gone_is_not_complete(place: Path) -> None:
    runtime = place / "sc" / "ray" / "abc"
    (runtime / "bin").mkdir(parents=True)
    (runtime / ".complete").touch()
    (runtime / "bin" / "python").symlink_to(sys.executable)
    assert report(place / "sc")["complete"] == ["ray/abc/.complete"]
    (runtime / "bin" / "python").unlink()
    (runtime / "bin" / "python").symlink_to("/nowhere/python3")
    assert report(place / "sc")["complete"] == []


LISTED = """table inet seedcore_ray {
\tchain rules_abc {
\t}

\tchain input {
\t\ttype filter hook input priority filter - 5; policy accept;
\t\tiif "lo" accept
\t\treject with tcp reset
\t}
}
table inet flushed {
\tset ports {
\t\ttype inet_service
\t}

\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
"""


def test_rules_that_were_flushed_are_not_in_force() -> None:
    chains_of = runpy.run_path(str(PROGRAM))["chains_of"]
    assert chains_of(LISTED) == ["seedcore_ray/input", "seedcore_ray/rules_abc"]
    assert chains_of("") == []


def test_units_are_told_with_the_directory_that_they_work_in(place: Path) -> None:
    names = runpy.run_path(str(PROGRAM), run_name="report")
    (place / "a-ray.service").write_text("[Service]\nWorkingDirectory=/opt/a\nExecStart=/x\n")
    (place / "other.service").write_text("[Service]\nExecStart=/x\n")
    (place / "gone.service").symlink_to(place / "nowhere")
    names["units"].__globals__["UNITS"] = place

    assert names["units"]() == {"a-ray": "/opt/a", "other": ""}


@needs_root
def test_who_owns_a_deployment_is_told_whatever_its_user_has_put_there(place: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    assert report(place)["owner"] == ""
    (place / "state").mkdir()
    (place / "state" / "home").symlink_to("/root")
    os.chown(place / "state" / "home", nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    assert report(place)["owner"] == "nobody"
    (place / "state" / "home").unlink()
    (place / "state" / "home").mkdir()
    os.chown(place / "state" / "home", 54321, 54321)
    assert report(place)["owner"] == "", "a number of another host"


def test_an_environment_says_when_it_was_made_anew(place: Path) -> None:
    for name, text in (("one", ""), ("two", "20261126T210000Z\n")):
        (place / "ray" / name).mkdir(parents=True)
        (place / "ray" / name / ".complete").write_text(text)
    assert report(place)["runtime_revisions"] == {"one": "", "two": "20261126T210000Z"}
