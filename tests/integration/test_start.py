"""Test successful and failed starts of a Coordinator, with the real command line on a real Ray."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.conftest import Organism
from tests.support.waiting import eventually


def slow(organism: Organism, **options: Any) -> tuple[dict[str, Any], Path]:
    """Return an organ that does not start until a file is removed."""
    blocker = organism.directory / "blocker"
    blocker.touch()
    options["path"] = str(blocker)
    return {"id": "slow", "agent": "helpers:StartsWhenFileIsGone", "options": options}, blocker


def test_a_slow_start_is_told_with_its_stage_and_then_healthy(organism: Organism) -> None:
    organ, blocker = slow(organism, seconds=8)
    path = organism.config({"id": "quick"}, organ)
    starting = organism.start("bootstrap", "--config", str(path))
    began = time.monotonic()

    def initializing() -> dict[str, object] | None:
        done = organism.run("status", "--json")
        report: dict[str, object] = json.loads(done.stdout)
        staged = report["status"] == "initializing" and "1 of 2 organs ready" in str(report["message"])
        return report if staged else None

    report = eventually(initializing, what="the stage")
    assert "starting: slow" in str(report["message"])

    waited = organism.run("status", "--wait", "--timeout", "2")
    assert waited.returncode == 5
    assert "still initializing: 1 of 2 organs ready" in waited.stdout + waited.stderr

    blocker.unlink()
    _, err = starting.communicate(timeout=60)
    assert starting.returncode == 0, err
    assert time.monotonic() - began >= 8
    assert organism.run("status").returncode == 0


def test_an_organ_that_fails_to_start_fails_at_once_and_leaves_nothing(organism: Organism) -> None:
    blocker = organism.directory / "blocker"
    blocker.touch()
    good = {"id": "good"}
    bad = {"id": "bad", "agent": "helpers:FailsWhileFileExists", "options": {"path": str(blocker)}}
    path = organism.config(good, bad)

    done = organism.run("bootstrap", "--config", str(path), "--wait-timeout", "120", "--retries", "1", "--json")

    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["attempts"] == 2
    assert outcome["elapsed_s"] < 60
    assert outcome["reason"] == "init_failed"
    assert outcome["message"] == (
        "Coordinator initialization failed: organ bad: agent bad_agent_0 did not start: "
        "ValueError: the database is locked by blocker"
    )
    assert 'raise ValueError(f"the database is locked by' in outcome["cause"]
    assert organism.actors() == []
    status = organism.run("status")
    assert status.returncode == 1
    assert "the database is locked by blocker" in status.stdout

    blocker.unlink()
    again = organism.run("bootstrap", "--config", str(path))
    assert again.returncode == 0, again.stderr


def test_a_deadline_says_what_it_waits_for_and_the_start_goes_on(organism: Organism) -> None:
    organ, blocker = slow(organism)

    done = organism.run("bootstrap", "--config", str(organism.config(organ)), "--wait-timeout", "15", "--json")

    assert done.returncode == 5
    outcome = json.loads(done.stdout)
    # The last probe may take a second or two.
    assert 15 <= outcome["elapsed_s"] < 20
    assert outcome["message"].startswith("still initializing: ")
    stage = "initializing  starting: 0 of 1 organs ready; starting: slow"
    eventually(lambda: stage in organism.run("status").stdout, what="the stage")
    blocker.unlink()
    assert organism.run("status", "--wait", "--timeout", "60").returncode == 0


def test_a_second_bootstrap_changes_nothing(shared: Organism) -> None:
    shared.up({"id": "one"})
    before = shared.told()

    done = shared.run("bootstrap", "--config", str(shared.config({"id": "one"})), "--json")

    assert done.returncode == 0
    outcome = json.loads(done.stdout)
    assert (outcome["action"], outcome["changed"]) == ("none", False)
    after = shared.told()
    assert after["pid"] == before["pid"]
    assert [organ["replicas"][0]["pid"] for organ in after["organs"]] == [
        organ["replicas"][0]["pid"] for organ in before["organs"]
    ]


def test_two_bootstraps_at_once_end_with_one_coordinator(organism: Organism) -> None:
    path = organism.config({"id": "one"}, {"id": "two"})
    both = [organism.start("bootstrap", "--config", str(path), "--json") for _ in range(2)]

    outcomes = []
    for process in both:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out))

    assert sorted(outcome["action"] for outcome in outcomes) == ["create", "none"]
    assert {outcome["status"]["coordinator"]["actor_id"] for outcome in outcomes} == {
        organism.probe().coordinator["actor_id"]
    }
    assert organism.actors() == ["seedcore_coordinator", "seedcore_organ.one.0", "seedcore_organ.two.0"]


def test_a_faulty_file_starts_nothing_and_hurts_nothing(organism: Organism) -> None:
    bad = organism.directory / "bad.yaml"
    bad.write_text("seedcore:\n  organism:\n    organ_types:\n      - id: one\n        type: Test\n        agents: 3\n")

    done = organism.run("bootstrap", "--config", str(bad))
    assert done.returncode == 2
    assert f"{bad}:6:9: " in done.stderr
    assert organism.actors() == []

    organism.up({"id": "one"})
    before = organism.probe().coordinator["pid"]
    assert organism.run("bootstrap", "--config", str(bad)).returncode == 2
    assert organism.probe().coordinator["pid"] == before


def test_resources_that_do_not_exist_are_named(organism: Organism) -> None:
    path = organism.config({"id": "big", "resources": {"quantum": 1}})

    done = organism.run("bootstrap", "--config", str(path), "--wait-timeout", "12")
    if "waits for" not in done.stderr:
        # On a slow machine the start of the Coordinator's process takes this long; the start goes on.
        done = organism.run("bootstrap", "--config", str(path), "--wait-timeout", "12")

    assert done.returncode == 5
    assert "seedcore_organ.big.0 waits for" in done.stderr
    assert "quantum: 1" in done.stderr


def test_an_optional_organ_that_fails_leaves_a_degraded_organism(organism: Organism) -> None:
    blocker = organism.directory / "blocker"
    blocker.touch()
    options = {"path": str(blocker)}
    path = organism.config(
        {"id": "one"}, {"id": "extra", "required": False, "agent": "helpers:FailsWhileFileExists", "options": options}
    )

    done = organism.run("bootstrap", "--config", str(path), "--json")

    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert (outcome["reason"], outcome["healthy"]) == ("degraded", False)
    assert "extra: 0 of 1 agents ready (extra_agent_0: the database is locked by blocker)" in outcome["message"]
    assert organism.probe(allow_degraded=True).healthy

    blocker.unlink()
    eventually(lambda: organism.probe().healthy, timeout_s=30, what="the optional organ healed by itself")


def test_the_gate_expectations_are_checked(shared: Organism) -> None:
    shared.up({"id": "one"})

    assert shared.probe(expected_release="9.9.9").reason == "wrong_release"
    assert shared.probe(expected_nodes=2).reason == "nodes_missing"
    ours = shared.told()["fingerprint"]
    assert shared.run("status", "--expected-fingerprint", ours).returncode == 0
    other = shared.run("status", "--expected-fingerprint", "0123456789ab")
    assert other.returncode == 1
    assert "unhealthy  wrong_configuration: " in other.stdout
    assert ours in other.stdout
    waited = shared.run("status", "--wait", "--timeout", "60", "--expected-fingerprint", "0123456789ab", "--json")
    # Waiting does not help.
    assert (waited.returncode, json.loads(waited.stdout)["terminal"]) == (1, True)
    assert shared.run("status", "--canary", "--wait", "--timeout", "20", "--stable", "2").returncode == 0
