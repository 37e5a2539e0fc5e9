"""Run the scripts of the mission's document with its command lines against a real cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import Organism

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(organism: Organism, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments],
        env=organism.head.env(organism.settings),
        cwd=organism.directory,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_both_scripts_on_a_cluster_that_works(organism: Organism) -> None:
    path = organism.config({"id": "one"})

    started = script(organism, "bootstrap_coordinator.py", "--config", str(path))
    assert started.returncode == 0, started.stderr
    before = organism.probe().coordinator["pid"]

    checked = script(organism, "test_coordinator_async_init.py")
    assert checked.returncode == 0, checked.stderr
    assert [line.split()[0] for line in checked.stdout.splitlines()] == ["ok", "ok", "ok"]
    assert organism.probe().coordinator["pid"] == before
    everything = organism.drive("say([row['namespace'] for row in ray.util.list_named_actors(all_namespaces=True)])")
    assert not [namespace for namespace in everything if namespace.startswith("seedcore-selftest")]


def test_the_check_fails_where_there_is_nothing(organism: Organism) -> None:
    checked = script(organism, "test_coordinator_async_init.py")

    assert checked.returncode == 1
    assert "FAILED the deployed Coordinator answers as documented: there is no Coordinator" in checked.stderr
    assert organism.actors() == []
