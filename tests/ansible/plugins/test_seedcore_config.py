from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import Executable

Run = Callable[..., dict[str, Any]]

# Refuses content with the word "bad" like the real command: place and error, exit code 2.
_CHECK = """
    path = sys.argv[sys.argv.index("--config") + 1]
    if "bad" in open(path).read():
        sys.stderr.write(f"{path}:3:5: bad is not allowed\\n{path}:4:1: nor is this\\n")
        sys.exit(2)
    print(f"{path}: valid")
"""


class Deployment:
    """A fake release that checks files, and the path of the installed file."""

    def __init__(self, executable: Executable, run: Run, directory: Path) -> None:
        self.executable = executable
        self.run = run
        self.dest = directory / "organism.yaml"
        executable.write(_CHECK)

    def apply(self, content: str, **options: Any) -> dict[str, Any]:
        given = {"executable": str(self.executable.path), **options}
        return self.run(
            "seedcore_config", source="mine.yaml", content=content, dest=str(self.dest), mode="0640", **given
        )


@pytest.fixture
def deployment(executable: Executable, run: Run, tmp_path: Path) -> Deployment:
    return Deployment(executable, run, tmp_path)


def test_a_file_that_is_accepted_is_put_in_place_once(deployment: Deployment) -> None:
    first, second = deployment.apply("good\n"), deployment.apply("good\n")
    assert (first["changed"], first["summary"]) == (True, "mine.yaml: valid")
    assert second["changed"] is False
    assert deployment.dest.read_text() == "good\n"
    assert deployment.dest.stat().st_mode & 0o777 == 0o640


def test_a_file_with_faults_changes_nothing_and_each_is_named(deployment: Deployment) -> None:
    deployment.apply("good\n")
    result = deployment.apply("bad\n")
    assert result["failed"]
    assert result["faults"] == ["mine.yaml:3:5: bad is not allowed", "mine.yaml:4:1: nor is this"]
    assert result["msg"] == "\n".join(result["faults"])
    assert deployment.dest.read_text() == "good\n"


def test_a_file_in_place_is_checked_again_by_another_release(deployment: Deployment) -> None:
    deployment.dest.write_text("bad\n")
    assert deployment.apply("bad\n")["failed"]


def test_check_mode_judges_and_changes_nothing(deployment: Deployment) -> None:
    assert deployment.apply("good\n", _ansible_check_mode=True)["changed"]
    assert deployment.apply("bad\n", _ansible_check_mode=True)["failed"]
    assert not deployment.dest.exists()


def test_check_mode_cannot_ask_a_release_that_is_yet_to_be_installed(deployment: Deployment, tmp_path: Path) -> None:
    result = deployment.apply("good\n", executable=str(tmp_path / "none"), _ansible_check_mode=True)
    assert (result["changed"], result["summary"]) == (True, "")


def test_a_check_that_hangs_fails_within_its_deadline(deployment: Deployment) -> None:
    deployment.executable.write("time.sleep(300)")
    result = deployment.apply("good\n", timeout=1)
    assert (result["failed"], result["msg"]) == (True, "mine.yaml was not checked within 1 s")
    assert not deployment.dest.exists()


def test_root_lets_the_user_of_the_deployment_import_the_agents(run: Run, common_place: Path) -> None:
    executable, dest = common_place / "seedcore", common_place / "organism.yaml"
    executable.write_text('#!/bin/sh\nread line <"$4" && echo "$(id -un) read $line, at home in $HOME"\n')
    executable.chmod(0o755)
    options = {"source": "mine.yaml", "content": "good\n", "dest": str(dest), "mode": "0640"}

    result = run("seedcore_config", executable=str(executable), user="nobody", **options)
    unknown = run("seedcore_config", executable=str(executable), user="nobody-such", **options)

    assert result["summary"] == f"nobody read good, at home in {pwd.getpwnam('nobody').pw_dir}"
    assert dest.stat().st_uid == 0
    assert unknown["msg"] == "there is no user nobody-such"


def test_what_options_of_agents_hold_is_neither_in_the_journal_nor_in_the_answer(
    deployment: Deployment, run: Run
) -> None:
    deployment.apply("good: old\nmore: 1\n")
    result = deployment.apply("good: new\nmore: 1\n")

    assert result["invocation"]["module_args"]["content"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    # The user has set --diff and seedcore_config_diff.
    lines = result["diff"]["prepared"].splitlines()
    assert lines[-3:] == ["-good: old", "+good: new", " more: 1"]


def test_the_check_knows_where_durable_tasks_will_be(deployment: Deployment) -> None:
    deployment.executable.write('print("inbox", os.environ.get("SEEDCORE_INBOX"))')
    assert deployment.apply("good\n", inbox="sqlite")["summary"] == "inbox sqlite"
