"""Test the one-line cause of a process's death, from Ray's record, and the interpreter of an actor."""

from __future__ import annotations

from typing import Any

import pytest
from ray.core.generated import common_pb2, gcs_pb2

from seedcore.coordinator import actors
from seedcore.coordinator.actors import death_cause, exit_cause
from seedcore.core import release

common: Any = common_pb2
gcs: Any = gcs_pb2
LOW = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.1, ID: ab) was "
    "23.50GB used / 24.00GB limit (0.979167)\nTop 10 memory users:\n..."
)


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ("oom_context", "low on memory"),
        ("runtime_env_failed_context", "no such interpreter"),
        ("actor_died_error_context", "its node died"),
        ("actor_unschedulable_context", "no GPU"),
    ],
)
def test_the_cause_is_taken_from_whichever_context_there_is(context: str, text: str) -> None:
    cause = common.ActorDeathCause()
    getattr(cause, context).error_message = f"\n{text}\nand much more"

    assert death_cause(cause) == text
    assert death_cause(common.ActorDeathCause()) is None


def test_a_kill_by_the_memory_monitor_is_named_with_the_amounts() -> None:
    worker = gcs.WorkerTableData()
    worker.exit_type, worker.exit_detail = common.WorkerExitType.NODE_OUT_OF_MEMORY, LOW
    worker.memory_used_bytes_at_death = 1_250_000_000

    assert exit_cause(worker) == (
        "Ray's memory monitor has killed its process: the node used 23.50GB of 24.00GB, the process 1.2GB"
    )

    worker.exit_type = common.WorkerExitType.SYSTEM_ERROR
    assert exit_cause(worker) is None


@pytest.mark.parametrize(
    ("deployed", "given", "expected"),
    [(False, "", None), (True, "", "/r/1/bin/python"), (True, "/a/1/bin/python", "/a/1/bin/python")],
)
def test_an_actor_runs_with_the_interpreter_of_its_layer(
    monkeypatch: pytest.MonkeyPatch, deployed: object, given: str, expected: str | None
) -> None:
    monkeypatch.setattr(release, "is_deployed", lambda: bool(deployed))
    monkeypatch.setattr(release, "python", lambda: "/r/1/bin/python")

    assert actors.runtime_env(given).get("py_executable") == expected
