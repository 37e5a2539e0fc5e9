"""Start the Coordinator, or converge it to this configuration and release, within a deadline.

It is idempotent: it verifies an existing Coordinator (release, configuration, status, and a nonce through every organ),
and joins Ray only to create or kill an actor. It is free of races: a lock serializes callers on one host, the actor's
name serializes callers on several hosts, and a caller that finds another organism decides again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seedcore.core import release
from seedcore.core.backoff import Backoff
from seedcore.core.errors import ClusterError, DeadlineError
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec
from seedcore.core.state_file import lock, open_lock
from seedcore.deployment import desired_state
from seedcore.deployment.convergence import Decision, Identity, decide, judged
from seedcore.deployment.driver import Driver
from seedcore.status import host_processes
from seedcore.status.probing import check_canary, probe, wait
from seedcore.status.report import Report, report_of

# A restarting process does not answer either, so replace only a process that stays silent for this long.
PATIENCE_S = 10.0
PATIENCE_SHARE = 0.25
# The time must also suffice to undo a failed reload.
RELOAD_SHARE = 0.8
# Share of the time for tasks in flight before a Coordinator is replaced.
QUIESCE_SHARE = 0.4
# Time of `shutdown` for ending the processes.
KILL_S = 2.0
# Shortest time limit of a request, even at the deadline: a busy host is not a dead one.
CANARY_MIN_S = 2.0
BACKOFF = Backoff((1.0, 2.0, 4.0, 8.0))
_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a bootstrap.

    Attributes:
        action: ``none``, ``create``, ``replace``, or ``reload``: the Coordinator stays, organs were replaced.
        changed: Whether an actor was (or, for a dry run, would be) created or replaced.
        attempts: Number of creations that were tried.
        elapsed_s: Seconds that it took.
        fingerprint: Fingerprint of the wanted organism.
        report: The last report.
        cause: Traceback of the last failed creation, empty if none failed.
        baked: Result of the comparison of old and new processes in one line, empty if there was none.
    """

    action: str
    changed: bool
    attempts: int
    elapsed_s: float
    report: Report
    fingerprint: str = ""
    cause: str = ""
    baked: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the report under ``status``."""
        return {
            "action": self.action,
            "changed": self.changed,
            "attempts": self.attempts,
            "elapsed_s": round(self.elapsed_s, 3),
            "fingerprint": self.fingerprint,
            "healthy": self.report.healthy,
            "reason": self.report.reason,
            "message": self.report.message,
            "cause": self.cause,
            "baked": self.baked,
            "status": self.report.to_dict(),
        }


def bootstrap(
    settings: Settings,
    spec: OrganismSpec,
    *,
    wait_timeout_s: float = 60.0,
    retries: int = 2,
    replace: bool = False,
    dry_run: bool = False,
    keep_desired: bool = False,
    bake_s: float = 0.0,
    bake_tolerance: float = 0.5,
    on_progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Make sure that one healthy Coordinator runs with this spec and release.

    Args:
        settings: Where the cluster is.
        spec: The organism.
        wait_timeout_s: Time limit for everything but ``bake_s``, in seconds; then it returns the present state, and a
            Coordinator that is initializing goes on.
        retries: Number of retries of a failed creation (with back-off, within the deadline).
        replace: Replace a Coordinator even if nothing differs.
        dry_run: Only return what would be done.
        keep_desired: Start what ``desired.json`` wants, and do not change the file (for the supervisor). If no
            Coordinator is wanted any more, do nothing; an organism in the file replaces ``spec``.
        bake_s: Seconds for which a reload lets one new process of each changed organ take its share of the tasks, and
            compares it with the old ones; 0 compares nothing.
        bake_tolerance: Share by which the new process may be worse.
        on_progress: Called with one line for each change.

    Raises:
        ConfigError: The token cannot be read or the state directory cannot be written.
    """
    run = _Run(settings, spec, timeout_s=wait_timeout_s, repeats=keep_desired, say=on_progress or _silent)
    if bake_s:
        run.bake = {"seconds": bake_s, "tolerance": bake_tolerance}
        run.deadline += bake_s
    if dry_run:
        report = run.probe()
        action = decide(report, run.ours, replace=replace).action
        return run.outcome("none" if action in {"wait", "give_up"} else action, report)
    try:
        with _lock(settings, run.deadline):
            return _converge(run, retries=retries, replace=replace)
    except DeadlineError as error:
        report = run.verified(run.probe())
        text = f"{report.message} ({error})"
        return run.outcome("none", dataclasses.replace(judged(report, run.ours), message=text))
    except ClusterError as error:
        return run.outcome(run.action, report_of(error.reason, str(error), status=Status.UNHEALTHY))
    finally:
        run.driver.leave()


def shutdown(settings: Settings, *, timeout_s: float = 30.0) -> bool:
    """Stop the organism and end the Coordinator; return True if there was something to stop.

    Raises:
        ClusterError: The cluster cannot be reached or joined.
        ConfigError: The token cannot be read or the state directory cannot be written.
        DeadlineError: A bootstrap is running and did not end in time.
    """
    desired_state.write_desired(settings, "stopped")
    report = probe(settings)
    if report.unknown:
        raise ClusterError(report.reason, report.message)
    run = _Run(settings, OrganismSpec(organs=()), timeout_s=timeout_s)
    try:
        with _lock(settings, run.deadline):
            run.driver.join()
            run.driver.stop_organs(run.remaining() - KILL_S)
            found = run.driver.kill_coordinator()
            # Kill the organs that have not stopped.
            return bool(run.driver.kill_organs()) or found
    finally:
        run.driver.leave()


def _converge(run: _Run, *, retries: int, replace: bool) -> Outcome:
    """Probe, decide and act until the Coordinator is healthy and ours, cannot become so, or the time is over."""
    while True:
        if run.repeats and not run.still_wanted():
            report = run.probe()
            text = f"{report.message}; no Coordinator is wanted any more, did nothing"
            return run.outcome(run.action, dataclasses.replace(report, message=text))
        report = run.until_identified(replace=replace)
        decision = decide(report, run.ours, replace=replace, repeats=run.repeats)
        replace = False
        if decision.action == "give_up":
            return run.outcome(run.action, report)
        report = run.wait() if decision.action == "wait" else run.act(decision, report)
        if report.status == Status.HEALTHY and run.ours.is_of(report):
            run.want_running()
            return run.outcome(run.action, report)
        is_other = report.status == Status.HEALTHY and decision.action != "reload"
        if is_other and run.remaining() > 0 and run.attempts <= retries:
            # Another organism than ours has started: decide again.
            continue
        if not run.has_failed_to_create(report):
            return run.outcome(run.action, judged(report, run.ours))
        run.cause = str(report.evidence.get("traceback", ""))
        run.driver.kill_organs()
        delay_s = BACKOFF.delay_s(run.attempts)
        if run.attempts > retries or run.remaining() <= delay_s:
            run.want_nothing()
            return run.outcome(run.action, report)
        run.say(f"attempt {run.attempts} failed: {report.message}; retrying in {delay_s:g} s")
        time.sleep(delay_s)


class _Run:
    """One run of bootstrap: its deadline, its counters, and its connection to Ray if it needs one."""

    def __init__(
        self,
        settings: Settings,
        spec: OrganismSpec,
        *,
        timeout_s: float,
        repeats: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.repeats = repeats
        self.say = say or _silent
        self.action = "none"
        self.attempts = 0
        self.cause = ""
        self.bake: dict[str, float] = {}
        self.baked = ""
        # What Ray had no place for during a reload, one text per process.
        self._waits: list[str] = []
        self.driver = Driver(settings, self.remaining)
        self._take(spec)
        self._created = ""
        self._said = ""
        self._timeout_s = timeout_s
        self._started = time.monotonic()
        self.deadline = self._started + timeout_s

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def probe(self) -> Report:
        """Probe once."""
        return probe(self.settings, timeout_s=max(1.0, min(3.0, self.remaining())))

    def still_wanted(self) -> bool:
        """Read the desired state again: an operator may have changed it while this process started or waited."""
        wanted = desired_state.read_desired(self.settings)
        if wanted is None or wanted.desired != "running":
            return False
        if wanted.spec is not None:
            self._take(wanted.spec)
        return True

    def until_identified(self, *, replace: bool) -> Report:
        """Probe until a decision is possible.

        It waits for a starting Coordinator until it reports release and configuration, and for a moment for a
        Coordinator or a cluster that is silent.
        """
        patience = time.monotonic() + min(PATIENCE_S, self._timeout_s * PATIENCE_SHARE)
        while True:
            report = self.probe()
            now = time.monotonic()
            if now >= self.deadline or replace or report.terminal or report.evidence.get("zombie"):
                return report
            silent = "silence" in report.evidence
            comes_up = report.status == Status.INITIALIZING and not Identity.is_told(report)
            if not (silent and now < patience) and not (comes_up and report.reason != Reason.UNSCHEDULABLE):
                return report
            if comes_up:
                self._tell(report)
            time.sleep(_POLL_S)

    def act(self, decision: Decision, report: Report) -> Report:
        """Create, replace or reload; return the resulting report."""
        self.driver.join()
        if self.action in {"none", "reload"}:
            self.action = decision.action
        if decision.action == "reload":
            return self._reload(report, decision.why)
        if decision.action == "replace":
            self.say(f"replacing the Coordinator: {decision.why}")
            self._end_process(report)
        self.want_running()
        self.attempts += 1
        # The organs of a Coordinator that is gone have been killed, or are not known to be well.
        predecessor = str(report.coordinator.get("actor_id") or "") if decision.action == "replace" else ""
        self._created = self.driver.create(self.spec, attempt=self.attempts, predecessor=predecessor)
        return self.wait()

    def wait(self) -> Report:
        """Wait until the Coordinator is healthy, a creation has failed, or the time is over."""
        report = wait(
            self.settings,
            timeout_s=self.remaining(),
            interval_s=_POLL_S,
            on_change=self._tell,
            allow_degraded=True,
            ends=self.has_failed_to_create,
        )
        if self.has_failed_to_create(report):
            # The requested creation has ended without a Coordinator, whatever Ray reported.
            return dataclasses.replace(report, reason=Reason.INIT_FAILED)
        return self.verified(report)

    def has_failed_to_create(self, report: Report) -> bool:
        """Return whether the actor that this run has created is dead."""
        own = report.coordinator
        return bool(self._created) and own.get("state") == "DEAD" and own.get("actor_id") == self._created

    def verified(self, report: Report) -> Report:
        """Accept a healthy status only if every organ returns a nonce; distinguish degraded from healthy."""
        if report.status != Status.HEALTHY:
            return report
        report = check_canary(self.settings, report, timeout_s=max(CANARY_MIN_S, min(10.0, self.remaining())))
        return dataclasses.replace(report, healthy=report.status == Status.HEALTHY and not report.degraded)

    def want_running(self) -> None:
        """Record that this organism is wanted, unless it is already recorded."""
        if self.repeats:
            return
        wanted = desired_state.read_desired(self.settings)
        if (
            wanted is None
            or (wanted.desired, wanted.fingerprint) != ("running", self.ours.fingerprint)
            or (wanted.config is not None and wanted.spec is None)
        ):
            desired_state.write_desired(self.settings, "running", spec=self.spec)

    def want_nothing(self) -> None:
        """Record that nothing is wanted, so that nobody retries a failed start without the operator's knowledge."""
        if not self.repeats:
            desired_state.write_desired(self.settings, "stopped", config=self.spec.source)

    def outcome(self, action: str, report: Report) -> Outcome:
        """Return the outcome."""
        return Outcome(
            action=action,
            changed=action != "none",
            attempts=self.attempts,
            elapsed_s=time.monotonic() - self._started,
            report=report,
            fingerprint=self.ours.fingerprint,
            cause=self.cause,
            baked=self.baked,
        )

    def _take(self, spec: OrganismSpec) -> None:
        self.spec = spec
        inbox = self.settings.inbox_place
        self.ours = Identity(release=release.release_id(), fingerprint=spec.fingerprint(), inbox=inbox)

    def _tell(self, report: Report) -> None:
        line = f"{report.status}: {report.message}"
        if line != self._said:
            self._said = line
            self.say(line)

    def _end_process(self, report: Report) -> None:
        """End a Coordinator for good: after its tasks if it answers, at once if it hangs."""
        pid, node_id = report.coordinator.get("pid"), report.coordinator.get("node_id")
        started = host_processes.start_ticks(pid)
        if report.coordinator.get("organism_initialized") and not self.driver.quiesce(self.remaining() * QUIESCE_SHARE):
            self.say("some tasks in flight did not end in time")
        self.driver.kill_coordinator()
        if report.reason == Reason.NOT_RESPONDING:
            # Ray only asks a process to end and waits long for one that hangs, but its port is needed now.
            host_processes.kill_actor(pid, node_id=node_id, started=started)

    def _reload(self, before: Report, why: str) -> Report:
        self.say(f"reloading: {why}")
        answer = self.driver.reload(
            self.spec,
            budget_s=max(1.0, (self.remaining() - self.bake.get("seconds", 0.0)) * RELOAD_SHARE),
            meanwhile=self._tell_progress,
            bake=self.bake or None,
        )
        if answer is not None and answer["success"] is not True:
            # Nothing has changed, except that some organs had to restart.
            self.cause = str(answer.get("traceback") or "")
            message = "; ".join([f"the running organism was not changed: {answer['error']}", *self._waits])
            return dataclasses.replace(
                before, healthy=False, status=Status.UNHEALTHY, reason=Reason.INIT_FAILED, message=message,
                evidence={"traceback": self.cause},
            )  # fmt: skip
        if answer is not None and (lines := answer.get("baked")):
            self.baked = "; ".join(lines)
            self.say(f"baked: {self.baked}")
        return self.wait()

    def _tell_progress(self) -> None:
        report = self.probe()
        if report.status == Status.INITIALIZING:
            self._waits = [part for part in report.message.split("; ") if " waits for " in part]
            self._tell(report)


@contextlib.contextmanager
def _lock(settings: Settings, deadline: float) -> Iterator[None]:
    """Let only one bootstrap at a time run on this host.

    Raises:
        DeadlineError: Another bootstrap holds the lock until the deadline.
        ConfigError: The state directory cannot be written.
    """
    descriptor = open_lock(settings.state_dir / desired_state.LOCK_NAME)
    try:
        if not lock(descriptor, timeout_s=deadline - time.monotonic()):
            raise DeadlineError("another bootstrap is running and did not end in time")
        yield
    finally:
        os.close(descriptor)


def _silent(_: str) -> None:
    pass
