"""Test that other prints do not mix with a command's results on standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seedcore.config.organism_file import load_config
from seedcore.deployment.desired_state import read_desired, write_desired
from seedcore.status import probing as status
from tests.support.command_line import command, run
from tests.support.fake_cluster import FakeCluster

NOISY = """
import os
print("hi, from an import")
os.write(1, b"hi, from C\\n")
os.system("echo hi, from a child")

def work(task):
    return 1
"""


@pytest.fixture
def organism(tmp_path: Path) -> Path:
    (tmp_path / "noisy.py").write_text(NOISY)
    path = tmp_path / "organism.yaml"
    organ = {"id": "one", "type": "T", "agent": "noisy:work", "task_types": ["work"]}
    path.write_text(json.dumps({"seedcore": {"organism": {"organ_types": [organ]}}}))
    return path


def spoken(cluster: FakeCluster, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv, env = command(cluster, *arguments)
    env["PYTHONPATH"] += f":{directory}"
    return subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_agents_that_print_when_they_are_imported_spoil_no_document(
    cluster: FakeCluster, tmp_path: Path, organism: Path
) -> None:
    shown = spoken(cluster, tmp_path, "config", "show", "--json", "--config", str(organism))

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["seedcore"]["organism"]["organ_types"][0]["id"] == "one"
    for source in ("an import", "C", "a child"):
        assert f"hi, from {source}\n" in shown.stderr

    checked = spoken(cluster, tmp_path, "config", "check", "--config", str(organism))
    assert checked.stdout.startswith(f"{organism}: valid, 1 organs, ")
    assert len(checked.stdout.splitlines()) == 1


def test_a_driver_that_prints_while_a_bootstrap_waits_spoils_no_document(
    cluster: FakeCluster, tmp_path: Path, organism: Path
) -> None:
    # Ray prints warnings of its raylets to the standard output of every driver.
    (tmp_path / "sitecustomize.py").write_text("""
import seedcore.deployment.bootstrap as module, os
ask = module.probe
def probe(*args, **options):
    print("(raylet) WARNING: 8 PYTHON worker processes have been started")
    os.write(1, b"(raylet) WARNING: and more\\n")
    return ask(*args, **options)
module.probe = probe
""")
    done = spoken(cluster, tmp_path, "bootstrap", "--json", "--dry-run", "--config", str(organism))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] == "replace"
    assert "(raylet) WARNING: 8 PYTHON" in done.stderr
    assert "(raylet) WARNING: and more" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status", "--help"], ["completion", "bash"]])
def test_what_was_asked_for_still_goes_to_standard_output(
    cluster: FakeCluster, tmp_path: Path, arguments: list[str]
) -> None:
    done = spoken(cluster, tmp_path, *arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize("closed", [1, 2])
def test_a_command_without_one_of_its_outputs_ends_as_ever(cluster: FakeCluster, closed: int) -> None:
    argv, env = command(cluster, "status", "--json")
    launcher = f"import os, sys; os.close({closed}); os.execvpe(sys.argv[1], sys.argv[1:], os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", launcher, *argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0
    if closed != 1:
        assert json.loads(done.stdout)["healthy"]


def test_in_this_process_too_only_the_command_speaks(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = status.probe

    def noisy(*args: Any, **options: Any) -> Any:
        sys.stdout.write("hi\n")
        return ask(*args, **options)

    monkeypatch.setattr(status, "probe", noisy)
    done = run(cluster, "status", "--json")

    assert json.loads(done.stdout)["healthy"]
    assert done.stderr == "hi\n"


def test_the_supervisors_bootstrap_needs_no_file_that_has_been_edited_since(
    cluster: FakeCluster, tmp_path: Path, organism: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_desired(cluster.settings, "running", spec=load_config(organism))
    organism.write_text("seedcore: {organism: {organ_types: [{id: one, typo: 1}]}}")
    arguments = ["bootstrap", "--json", "--dry-run", "--config", str(organism)]

    assert spoken(cluster, tmp_path, *arguments).returncode == 2
    repeated = spoken(cluster, tmp_path, *arguments, "--keep-desired")

    assert repeated.returncode == 0, repeated.stderr
    wanted = read_desired(cluster.settings)
    assert wanted is not None
    assert json.loads(repeated.stdout)["fingerprint"] == wanted.fingerprint
