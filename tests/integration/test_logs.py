"""SEEDCORE_LOG_LEVEL reaches the processes that Ray starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import Organism
from tests.support.waiting import eventually


@pytest.mark.parametrize(("level", "logged"), [("INFO", False), ("DEBUG", True)])
def test_the_level_of_the_bootstrap_is_that_of_coordinator_and_organs(
    organism: Organism, level: str, *, logged: bool
) -> None:
    organism.settings = replace(organism.settings, log_level=level)
    organism.up({"id": f"talkative_{level.lower()}"})
    assert organism.submit("task_1")["success"]

    def lines(text: str) -> list[str]:
        logs = (organism.head.directory / "t" / "session_latest" / "logs").glob("worker-*.err")
        return [line for path in logs for line in path.read_text().splitlines() if text in line]

    eventually(lambda: lines("INFO seedcore.coordinator: initialized"), what="the Coordinator's log")
    of_the_organ = f" organ=talkative_{level.lower()} agent=talkative_{level.lower()}_agent_0 type=task_1 success=True"
    if logged:
        eventually(lambda: lines(of_the_organ), what="the organ's log")
        eventually(lambda: lines("DEBUG seedcore.coordinator: task answered: type=task_1"), what="the Coordinator's")
    else:
        assert not lines(of_the_organ)


def test_a_level_that_does_not_exist_is_refused_before_anything_runs(organism: Organism) -> None:
    possible = organism.settings
    organism.settings = replace(possible, log_level="loud")

    done = organism.run("bootstrap")

    organism.settings = possible
    assert done.returncode == 2
    assert done.stderr == "environment: SEEDCORE_LOG_LEVEL is 'LOUD', allowed is DEBUG, INFO, WARNING or ERROR\n"
