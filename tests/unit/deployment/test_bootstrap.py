"""Test bootstrap: its decisions as a table, and its loop against a fake cluster with a fake clock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seedcore.core.errors import DeadlineError
from seedcore.core.release import release_id
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.deployment import bootstrap as module
from seedcore.deployment import desired_state as desired
from seedcore.deployment.bootstrap import Outcome, bootstrap, shutdown
from seedcore.deployment.convergence import Decision, Identity, decide
from seedcore.deployment.desired_state import read_desired, write_desired
from seedcore.status import probing as status
from seedcore.status.report import Report, report_of
from tests.support.fake_cluster import FakeCluster

OURS = Identity(release="r1", fingerprint="f1")


def organism(name: str) -> OrganismSpec:
    return OrganismSpec(organs=(OrganSpec(id=name, type="T", agent="a:b"),), source=f"/etc/{name}.yaml")


NEW, OLD = organism("new"), organism("old")


def seen(reason: str, word: str = "unhealthy", *, told: bool = True, evidence: Any = None, **own: Any) -> Report:
    said = {"status": word, "reason": reason, "release": "r1", "fingerprint": "f1", "organism_initialized": True}
    coordinator = {"actor_id": "a1", "pid": 7, "state": "ALIVE", **(said if told else {}), **own}
    return Report(
        healthy=word == "healthy", status=word, reason=reason, message="m", coordinator=coordinator,
        evidence=evidence or {},
    )  # fmt: skip


STARTS: dict[str, Any] = {"word": "initializing", "state": "PENDING_CREATION", "organism_initialized": False}
OTHER = "its configuration differs"


@pytest.mark.parametrize(
    ("report", "action", "why"),
    [
        # No Coordinator exists.
        (seen("absent", told=False), "create", ""),
        (seen("not_installed", told=False), "create", ""),
        (seen("init_failed", told=False, state="DEAD"), "create", ""),
        # The Coordinator is ours: only wait.
        (seen("ready", "healthy"), "wait", ""),
        (seen("degraded", "healthy"), "wait", ""),
        (seen("organs_down"), "wait", ""),
        (seen("starting", **STARTS), "wait", ""),
        # The Coordinator is not ours.
        (seen("ready", "healthy", release="r2"), "replace", "it has release r2, not r1"),
        (seen("ready", "healthy", release=None), "replace", "it has release None, not r1"),
        (seen("ready", "healthy", fingerprint="f2"), "reload", OTHER),
        (seen("ready", "healthy", fingerprint=None), "reload", OTHER),
        (seen("starting", fingerprint="f2", **STARTS), "replace", OTHER),
        (seen("organs_down", fingerprint="f2", organism_initialized=False), "replace", OTHER),
        # It has not reported its identity: an unknown value is neither equal nor different.
        (seen("starting", "initializing", told=False, state="PENDING_CREATION"), "wait", ""),
        (seen("restarting", "initializing", told=False, state="RESTARTING"), "wait", ""),
        (seen("unschedulable", "initializing", told=False, pid=0), "wait", ""),
        # It is changing into another one.
        (seen("reloading", "initializing", fingerprint="f2"), "wait", ""),
        # It is ours, and waiting cannot repair it.
        (seen("not_responding", told=False), "replace", "m"),
        (seen("not_responding", told=False, evidence={"zombie": True}), "replace", "m"),
        (seen("init_failed"), "replace", "m"),
        (seen("organs_down", organism_initialized=False), "replace", "m"),
        # Nothing is known, so nothing is decided.
        (seen("unreachable", told=False), "give_up", "m"),
        (seen("unauthorized", told=False), "give_up", "m"),
        (seen("state_damaged", told=False), "give_up", "m"),
        (seen("unreachable", told=False, evidence={"silence": "cannot_ask", "untrusted": False}), "give_up", "m"),
    ],
)  # fmt: skip
def test_what_is_done_about_what_is_seen(report: Report, action: Any, why: str) -> None:
    assert decide(report, OURS) == Decision(action, why)


def test_a_coordinator_gets_an_inbox_or_loses_it_as_the_settings_say() -> None:
    with_inbox = Identity(release="r1", fingerprint="f1", inbox="sqlite")
    assert decide(seen("ready", "healthy"), with_inbox) == Decision("replace", "it has no inbox for durable tasks")
    assert decide(seen("ready", "healthy", inbox={}), OURS) == Decision("replace", "it has an inbox for durable tasks")
    assert decide(seen("ready", "healthy", inbox={}), with_inbox) == Decision("wait")
    both = seen("ready", "healthy", fingerprint="f2")
    assert decide(both, with_inbox).action == "replace", "a reload would leave it without an inbox"


def test_who_asks_for_a_replacement_gets_one_where_there_is_something_to_replace() -> None:
    assert decide(seen("ready", "healthy"), OURS, replace=True) == Decision("replace", "asked to")
    assert decide(seen("starting", told=False, **STARTS), OURS, replace=True).action == "replace"
    assert decide(seen("absent", told=False), OURS, replace=True).action == "create"
    assert decide(seen("unauthorized", told=False), OURS, replace=True).action == "give_up"


def test_a_certificate_that_is_not_believed_is_an_operators_to_replace_and_no_supervisors() -> None:
    report = seen("unreachable", told=False, evidence={"silence": "cannot_ask", "untrusted": True})

    assert decide(report, OURS).action == "replace"
    assert decide(report, OURS, repeats=True).action == "give_up"


class Clock:
    """Fake module ``time``: a sleep advances the clock and triggers the events planned until then."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._plans: list[tuple[float, Callable[[], Any]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [plan for plan in self._plans if plan[0] <= self.now]
        self._plans = [plan for plan in self._plans if plan[0] > self.now]
        for _, happens in due:
            happens()

    def after(self, seconds: float, happens: Callable[[], Any]) -> None:
        self._plans.append((self.now + seconds, happens))


class Hands:
    """Fake driver that does to the fake cluster what Ray would do to a real one."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.calls: list[str] = []
        self.bakes: list[Mapping[str, float] | None] = []
        self.fails = 0
        self.death: dict[str, Any] = {}
        self.answer: dict[str, Any] | None = None
        self.winner: OrganismSpec | None = None
        self.limits: dict[str, float] = {}
        self.predecessor = ""

    def join(self) -> None:
        self.calls.append("join")

    def leave(self) -> None:
        self.calls.append("leave")

    def create(self, spec: OrganismSpec, *, attempt: int, predecessor: str = "") -> str:
        self.calls.append(f"create {spec.source}")
        self.predecessor = predecessor
        actor_id = f"c{attempt}"
        self.runs(self.winner or spec, actor_id=actor_id)
        self.winner = None
        if attempt <= self.fails:
            assert self.cluster.coordinator is not None
            self.cluster.coordinator |= {"state": "DEAD", "death_cause": self.death}
        return actor_id

    def reload(
        self,
        spec: OrganismSpec,
        *,
        budget_s: float,
        meanwhile: Callable[[], None],
        bake: Mapping[str, float] | None = None,
    ) -> dict[str, Any] | None:
        self.calls.append(f"reload {spec.source}")
        self.bakes.append(bake)
        self.limits["reload"] = budget_s
        assert budget_s >= 1.0
        meanwhile()
        if self.answer is None:
            self.runs(spec)
        return self.answer or {"success": True}

    def quiesce(self, timeout_s: float) -> bool:
        self.calls.append("quiesce")
        self.limits["quiesce"] = timeout_s
        return True

    def stop_organs(self, timeout_s: float) -> None:
        self.calls.append("stop")
        self.limits["stop"] = timeout_s

    def kill_coordinator(self) -> bool:
        self.calls.append("kill")
        found, self.cluster.coordinator = self.cluster.coordinator, None
        return found is not None

    def kill_organs(self) -> list[str]:
        self.calls.append("kill organs")
        return []

    def runs(self, spec: OrganismSpec, *, release: str = "", actor_id: str = "a1") -> None:
        """Put a healthy Coordinator of this organism into the cluster."""
        self.cluster.coordinator = {
            "actor_id": actor_id, "name": "seedcore_coordinator", "class_name": "Coordinator", "state": "ALIVE",
            "pid": 4_000_001, "node_id": self.cluster.nodes[0]["node_id"], "num_restarts": "0",
        }  # fmt: skip
        self.cluster.body |= {"release": release or release_id(), "fingerprint": spec.fingerprint()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(status, "time", clock)
    return clock


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    cluster.coordinator = None
    cluster.work = lambda task: (200, {"success": True, "result": {"nonce": task["params"]["nonce"]}})
    with cluster.running():
        yield cluster


@pytest.fixture
def hands(cluster: FakeCluster, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands(cluster)
    monkeypatch.setattr(module, "Driver", lambda _settings, _remaining: hands)
    return hands


def run(cluster: FakeCluster, spec: OrganismSpec = NEW, **options: Any) -> Outcome:
    return bootstrap(cluster.settings, spec, **options)


def wanted(cluster: FakeCluster) -> tuple[str, str] | None:
    found = read_desired(cluster.settings)
    return None if found is None else (found.desired, found.fingerprint)


def test_nothing_is_there_so_one_is_created(cluster: FakeCluster, hands: Hands) -> None:
    outcome = run(cluster)

    assert (outcome.action, outcome.changed, outcome.attempts, outcome.report.exit_code) == ("create", True, 1, 0)
    assert hands.calls == ["join", "create /etc/new.yaml", "leave"]
    assert wanted(cluster) == ("running", NEW.fingerprint())
    assert outcome.to_dict()["fingerprint"] == NEW.fingerprint()


def test_one_that_is_right_is_left_alone_and_ray_is_not_joined(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(NEW)

    outcome = run(cluster)

    assert (outcome.action, outcome.changed, outcome.report.exit_code) == ("none", False, 0)
    assert hands.calls == ["leave"]
    assert wanted(cluster) == ("running", NEW.fingerprint())


@pytest.mark.parametrize("silent_s", [2.0, 9.0, 30.0])
def test_a_coordinator_that_was_restarting_is_asked_what_it_is(
    cluster: FakeCluster, hands: Hands, clock: Clock, silent_s: float
) -> None:
    # Ray has restarted its process; until that is up, its organism is unknown.
    hands.runs(OLD)
    assert cluster.coordinator is not None
    row = cluster.coordinator
    body, cluster.body = cluster.body, {}
    row["state"] = "RESTARTING"

    def come_up() -> None:
        row["state"], cluster.body = "ALIVE", body

    clock.after(silent_s, come_up)
    outcome = run(cluster)

    assert (outcome.action, outcome.report.exit_code) == ("reload", 0)
    assert outcome.report.coordinator["fingerprint"] == NEW.fingerprint()
    assert wanted(cluster) == ("running", NEW.fingerprint())


def test_what_is_not_known_to_be_ours_at_the_deadline_is_not_written_down_as_wanted(
    cluster: FakeCluster, hands: Hands
) -> None:
    hands.runs(OLD)
    assert cluster.coordinator is not None
    cluster.coordinator["state"] = "RESTARTING"
    cluster.body = {}

    outcome = run(cluster, wait_timeout_s=20.0)

    assert (outcome.action, outcome.report.reason, outcome.report.exit_code) == ("none", "restarting", 5)
    assert wanted(cluster) is None


def test_whoever_loses_a_race_of_two_hosts_does_not_take_the_winners_organism_for_its_own(
    cluster: FakeCluster, hands: Hands
) -> None:
    hands.winner = OLD

    outcome = run(cluster)

    assert hands.calls == ["join", "create /etc/new.yaml", "join", "reload /etc/new.yaml", "leave"]
    assert (outcome.report.exit_code, outcome.report.coordinator["fingerprint"]) == (0, NEW.fingerprint())


def test_a_race_that_cannot_be_won_is_told_as_what_it_is(cluster: FakeCluster, hands: Hands) -> None:
    hands.winner = OLD
    hands.answer = {"success": True}

    outcome = run(cluster)

    assert (outcome.report.healthy, outcome.report.reason, outcome.report.exit_code) == (
        False, "wrong_configuration", 1,
    )  # fmt: skip
    assert OLD.fingerprint() in outcome.report.message
    assert NEW.fingerprint() in outcome.report.message


def test_another_release_is_replaced_after_its_tasks(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(NEW, release="another")

    outcome = run(cluster, wait_timeout_s=100.0)

    assert hands.calls == ["join", "quiesce", "kill", "create /etc/new.yaml", "leave"]
    assert hands.predecessor == "a1", "its organs can be adopted"
    assert 20.0 < hands.limits["quiesce"] < 60.0
    assert (outcome.action, outcome.report.exit_code) == ("replace", 0)


def test_one_that_is_silent_is_replaced_without_waiting_for_its_tasks_but_not_at_once(
    cluster: FakeCluster, hands: Hands, clock: Clock
) -> None:
    hands.runs(NEW)
    cluster.code, cluster.body = 404, {"detail": "another program"}
    body = {"status": "healthy", "reason": "ready", "message": "m", "pid": 4_000_001, "organs": []}
    kill = hands.kill_coordinator

    def kill_and_note() -> bool:
        hands.limits["killed after"] = clock.now - 1000.0
        cluster.code, cluster.body = 200, body
        return kill()

    hands.kill_coordinator = kill_and_note  # type: ignore[method-assign]
    outcome = run(cluster)

    assert hands.calls == ["join", "kill", "create /etc/new.yaml", "leave"]
    assert hands.limits["killed after"] == pytest.approx(10.0, abs=0.5)
    assert (outcome.action, outcome.report.exit_code) == ("replace", 0)


def test_a_failed_creation_is_tried_again_with_growing_pauses(cluster: FakeCluster, hands: Hands, clock: Clock) -> None:
    hands.fails = 2
    hands.death = {"creation_task_failure_context": {"formatted_exception_string": "RuntimeError: no such file"}}
    said: list[str] = []

    outcome = run(cluster, on_progress=said.append)

    assert (outcome.attempts, outcome.report.exit_code) == (3, 0)
    assert hands.calls.count("kill organs") == 2
    assert clock.now - 1000.0 == pytest.approx(3.0, abs=1.0)
    assert said[1] == "attempt 1 failed: no such file; retrying in 1 s"
    assert outcome.cause == "RuntimeError: no such file"


@pytest.mark.parametrize("context", ["runtime_env_failed_context", "oom_context", "actor_unschedulable_context"])
def test_a_creation_that_ray_itself_cannot_do_is_a_failed_one_and_not_waited_for(
    cluster: FakeCluster, hands: Hands, clock: Clock, context: str
) -> None:
    hands.fails, hands.death = 9, {context: {"error_message": "THE CAUSE"}}

    outcome = run(cluster, wait_timeout_s=600.0)

    assert (outcome.attempts, outcome.report.reason, outcome.report.exit_code) == (3, "init_failed", 1)
    assert "THE CAUSE" in outcome.report.message
    assert clock.now - 1000.0 < 10.0
    assert wanted(cluster) == ("stopped", "")


def test_a_dead_coordinator_of_earlier_is_not_the_one_that_was_just_created(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(OLD, actor_id="before")
    assert cluster.coordinator is not None
    cluster.coordinator |= {"state": "DEAD", "death_cause": {"actor_died_error_context": {"error_message": "killed"}}}

    assert run(cluster).report.exit_code == 0


def test_a_reload_that_was_refused_changes_nothing_and_says_why(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(OLD)
    write_desired(cluster.settings, "running", spec=OLD)
    hands.answer = {"success": False, "error": "agent new_agent_0 did not start", "traceback": "Traceback: x"}

    outcome = run(cluster)

    assert (outcome.report.reason, outcome.cause) == ("init_failed", "Traceback: x")
    assert outcome.report.message == "the running organism was not changed: agent new_agent_0 did not start"
    assert wanted(cluster) == ("running", OLD.fingerprint())


def test_a_reload_that_found_no_room_says_what_was_missing(
    cluster: FakeCluster, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.runs(OLD)
    hands.answer = {"success": False, "error": "organs a did not come up within 23.1 s"}
    waits = "seedcore_organ.a.0~1 waits for CPU: 0.1, nowhere: 1"
    report = report_of("reloading", f"reloading: 1 of 1 organs ready; starting: a; {waits}", status="initializing")
    probe = status.probe

    def look(settings: Settings, *, timeout_s: float) -> Report:
        return report if hands.calls[-1:] == [f"reload {NEW.source}"] else probe(settings, timeout_s=timeout_s)

    monkeypatch.setattr(module, "probe", look)

    assert run(cluster).report.message.endswith(f": organs a did not come up within 23.1 s; {waits}")


def test_the_time_of_a_comparison_is_added_to_the_time_limit_and_its_result_told(
    cluster: FakeCluster, hands: Hands
) -> None:
    hands.runs(OLD)
    line = "30 s, 412 tasks on new, 0 failed (old: 1 of 1,630)"
    hands.answer = {"success": True, "baked": [line]}
    said: list[str] = []

    outcome = bootstrap(cluster.settings, NEW, wait_timeout_s=1.0, bake_s=3000.0, on_progress=said.append)

    assert outcome.baked == outcome.to_dict()["baked"] == line
    assert f"baked: {line}" in said
    assert hands.bakes == [{"seconds": 3000.0, "tolerance": 0.5}]
    assert hands.limits["reload"] <= 1.0


def test_a_degraded_organism_that_is_ours_is_wanted_too(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(NEW)
    cluster.body |= {"reason": "degraded", "degraded": True}

    outcome = run(cluster)

    assert (outcome.report.exit_code, outcome.report.reason) == (1, "degraded")
    assert wanted(cluster) == ("running", NEW.fingerprint())


def test_a_canary_that_does_not_come_back_is_not_healthy(cluster: FakeCluster, hands: Hands) -> None:
    hands.runs(NEW)
    cluster.work = lambda _: (500, {"success": False, "error": "the nonce was not returned by new[0]"})

    assert run(cluster).report.reason == "organs_down"


@pytest.mark.parametrize(
    ("error_type", "reason"),
    [("InboxStuckError", "inbox_stuck"), ("InboxUnavailableError", "inbox_unavailable"), (None, "organs_down")],
)
def test_a_canary_that_does_not_come_back_from_the_inbox_is_not_healthy(
    cluster: FakeCluster, hands: Hands, error_type: str | None, reason: str
) -> None:
    hands.runs(NEW)
    cluster.work = lambda _: (500, {"success": False, "error": "why", "error_type": error_type})

    assert run(cluster).report.reason == reason


def test_the_supervisors_bootstrap_starts_nothing_that_was_shut_down_meanwhile(
    cluster: FakeCluster, hands: Hands
) -> None:
    write_desired(cluster.settings, "stopped")

    outcome = run(cluster, keep_desired=True)

    assert (outcome.action, outcome.changed, outcome.report.reason) == ("none", False, "absent")
    assert "no Coordinator is wanted any more" in outcome.report.message
    assert hands.calls == ["leave"]


def test_the_supervisors_bootstrap_starts_what_was_wanted_and_not_what_the_file_says_now(
    cluster: FakeCluster, hands: Hands
) -> None:
    write_desired(cluster.settings, "running", spec=OLD)

    outcome = run(cluster, NEW, keep_desired=True)

    assert hands.calls == ["join", "create /etc/old.yaml", "leave"]
    assert (outcome.report.exit_code, outcome.fingerprint) == (0, OLD.fingerprint())


@contextmanager
def locked(cluster: FakeCluster) -> Iterator[None]:
    cluster.settings.state_dir.mkdir(parents=True)
    descriptor = os.open(cluster.settings.state_dir / desired.LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("runs", "reason", "code"), [(NEW, "ready", 0), (OLD, "wrong_configuration", 1)])
def test_a_bootstrap_that_waits_for_another_one_in_vain_says_what_is_true(
    cluster: FakeCluster, hands: Hands, runs: OrganismSpec, reason: str, code: int
) -> None:
    hands.runs(runs)
    with locked(cluster):
        outcome = run(cluster, wait_timeout_s=5.0)

    assert (outcome.action, outcome.report.reason, outcome.report.exit_code) == ("none", reason, code)
    assert outcome.report.message.endswith("(another bootstrap is running and did not end in time)")
    assert outcome.report.nodes["alive"] == 1


def test_a_certificate_that_cannot_be_read_is_no_reason_to_replace_anything(
    cluster: FakeCluster, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.runs(NEW)
    settings = replace(cluster.settings, http_tls_cert=Path("no-such-file.pem"))

    outcome = bootstrap(settings, NEW)

    assert (outcome.report.reason, outcome.report.exit_code) == ("unreachable", 4)
    assert "cannot read the certificate no-such-file.pem" in outcome.report.message
    assert hands.calls == ["leave"]


@pytest.mark.parametrize("timeout_s", [30.0, 120.0])
def test_a_shutdown_gives_the_organs_all_of_its_time(cluster: FakeCluster, hands: Hands, timeout_s: float) -> None:
    hands.runs(NEW)

    assert shutdown(cluster.settings, timeout_s=timeout_s)

    assert hands.limits["stop"] == pytest.approx(timeout_s - module.KILL_S, abs=0.5)
    assert hands.calls == ["join", "stop", "kill", "kill organs", "leave"]
    assert wanted(cluster) == ("stopped", "")


def test_a_shutdown_during_a_bootstrap_says_so(cluster: FakeCluster, hands: Hands) -> None:
    with locked(cluster), pytest.raises(DeadlineError, match="another bootstrap is running"):
        shutdown(cluster.settings, timeout_s=5.0)


def test_a_dry_run_only_says_what_would_be_done(cluster: FakeCluster, hands: Hands) -> None:
    assert (run(cluster, dry_run=True).action, hands.calls) == ("create", [])
    hands.runs(OLD)
    assert run(cluster, dry_run=True).action == "reload"
    hands.runs(NEW)
    assert run(cluster, dry_run=True).action == "none"
    assert wanted(cluster) is None
