"""Test that SEEDCORE_LOG_LEVEL reaches the processes that Ray starts, and that their logs are where the docs say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Organism
from tests.support.waiting import eventually


def logs_of(organism: Organism) -> Path:
    """Return the directory of the logs of all processes of the node."""
    return organism.head.directory / "t" / "session_latest" / "logs"


def found(path: Path, text: str) -> list[str]:
    return [line for line in path.read_text().splitlines() if text in line]


@pytest.mark.parametrize(("level", "logged"), [("INFO", False), ("DEBUG", True)])
def test_the_level_of_the_bootstrap_is_that_of_coordinator_and_organs(
    organism: Organism, level: str, *, logged: bool
) -> None:
    organism.settings = replace(organism.settings, log_level=level)
    organism.up({"id": f"talkative_{level.lower()}"})
    assert organism.submit("task_1")["success"]

    def lines(text: str) -> list[str]:
        return [line for path in logs_of(organism).glob("worker-*.err") for line in found(path, text)]

    eventually(lambda: lines("INFO seedcore.coordinator.coordinator: initialized"), what="the Coordinator's log")
    of_the_organ = f" organ=talkative_{level.lower()} agent=talkative_{level.lower()}_agent_0 type=task_1 success=True"
    if logged:
        eventually(lambda: lines(of_the_organ), what="the organ's log")
        answered = "DEBUG seedcore.coordinator.coordinator: task answered: type=task_1"
        eventually(lambda: lines(answered), what="the Coordinator's")
    else:
        assert not lines(of_the_organ)


def test_a_level_that_does_not_exist_is_refused_before_anything_runs(organism: Organism) -> None:
    possible = organism.settings
    organism.settings = replace(possible, log_level="loud")

    done = organism.run("bootstrap")

    organism.settings = possible
    assert done.returncode == 2
    assert done.stderr == "environment: SEEDCORE_LOG_LEVEL is 'LOUD', expected DEBUG, INFO, WARNING or ERROR\n"


def test_what_an_agent_logs_is_in_the_log_of_its_process(organism: Organism) -> None:
    organism.up({"id": "speaker", "agent": "helpers:says"})
    answer = organism.submit("task_1", {"text": "forty lines\nand a forged one"})
    assert answer["success"], answer
    replica = organism.told()["organs"][0]["replicas"][0]
    assert replica["pid"] == answer["result"]
    (log,) = logs_of(organism).glob(f"worker-*-{replica['pid']}.err")
    (printed,) = logs_of(organism).glob(f"worker-*-{replica['pid']}.out")

    line, *others = eventually(lambda: found(log, "forty lines"), what="the line of the agent")

    assert others == []
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO speaker_agent_0 mine: logged: forty lines\\nand a forged one"
    assert re.fullmatch(pattern, line), line
    eventually(lambda: found(printed, "printed: forty lines"), what="what the agent prints")
