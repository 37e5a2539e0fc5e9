"""Test guarantees for agents in a real cluster: their children end with them, and their output is in a log."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.waiting import eventually


def test_what_an_agent_has_spawned_ends_with_its_process(organism: Organism) -> None:
    organism.up({"id": "one", "agent": "helpers:spawns", "task_types": ["spawn"]})

    first = organism.submit("spawn", {"seconds": 600})["result"]
    assert Path(f"/proc/{first}").exists()
    kill(organism.told()["organs"][0]["replicas"][0]["pid"])
    eventually(lambda: not Path(f"/proc/{first}").exists(), timeout_s=30, what="the child of a killed organ has ended")

    eventually(lambda: organism.probe().healthy, timeout_s=60, what="healthy again")
    second = organism.submit("spawn", {"seconds": 600})["result"]
    assert organism.run("shutdown").returncode == 0
    eventually(
        lambda: not Path(f"/proc/{second}").exists(), timeout_s=30, what="the child of a stopped organ has ended"
    )
