"""Bring the Coordinator up, or bring it to this configuration and release, within a deadline.

Idempotent: a Coordinator that exists is verified (its status, and a nonce through every organ), and Ray is joined
only if something has to be created or killed. Race-free: callers on one host take turns at a lock, callers on
several hosts meet at the actor's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seedcore import desired, processes, release
from seedcore.errors import ClusterError, ConfigError, DeadlineError, Fault
from seedcore.settings import Settings
from seedcore.spec import OrganismSpec
from seedcore.status import INITIALIZING, UNHEALTHY, Report, check_canary, probe, wait

JOIN_TIMEOUT_S = 30.0
# A restarting process looks as if it did not answer; only one that stays so is replaced.
UNRESPONSIVE_GRACE_S = 10.0
UNRESPONSIVE_GRACE_SHARE = 0.25
RELOAD_SHARE = 0.8
# An organ may need its drain_timeout_s and then its agents' stop.
GRACEFUL_S = 20.0
BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
_POLL_S = 0.25
# An answer that is there already.
_FETCH_S = 5.0
_LOCK_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What bootstrap did.

    Attributes:
        action: ``none``, ``create``, ``replace``, or ``reload``: the Coordinator stays, organs were replaced.
        changed: Whether an actor was (or, for a dry run, would be) created or replaced.
        attempts: Creations tried.
        elapsed_s: Seconds it took.
        report: The last probe.
        cause: Traceback of the last failed creation, empty if none failed.
    """

    action: str
    changed: bool
    attempts: int
    elapsed_s: float
    report: Report
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the report stands under ``status``."""
        return {
            "action": self.action,
            "changed": self.changed,
            "attempts": self.attempts,
            "elapsed_s": round(self.elapsed_s, 3),
            "healthy": self.report.healthy,
            "reason": self.report.reason,
            "message": self.report.message,
            "cause": self.cause,
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
    on_progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Make sure that one healthy Coordinator with this spec and release runs.

    Args:
        settings: Where the cluster is.
        spec: The organism.
        wait_timeout_s: Seconds for everything; then it returns what is true, and what initializes goes on.
        retries: How often a failed creation is tried again (with back-off, within the deadline).
        replace: Replace a Coordinator even if it is as it should be.
        dry_run: Only say what would be done.
        keep_desired: Do not record what is wanted (the supervisor only repeats what was wanted before).
        on_progress: Called with one line for each new thing that is known.

    Raises:
        ConfigError: The token cannot be read or the state directory cannot be written.
    """
    run = _Run(settings, spec, time.monotonic(), wait_timeout_s, on_progress or _silent)
    report = run.probe()
    if report.exit_code == 4:  # noqa: PLR2004 - unreachable or unauthorized: nothing to decide on
        return run.outcome("none", report)
    if dry_run:
        action = run.decide(report, replace=replace)
        return run.outcome("none" if action == "wait" else action, report)
    try:
        with _lock(settings, run.deadline):
            return _converge(run, retries=retries, replace=replace, keep_desired=keep_desired)
    except (DeadlineError, ClusterError) as error:
        reason = error.reason if isinstance(error, ClusterError) else "not_responding"
        return run.outcome(run.action, Report(healthy=False, status=UNHEALTHY, reason=reason, message=str(error)))
    finally:
        run.leave()


def shutdown(settings: Settings, *, timeout_s: float = 30.0) -> bool:
    """Stop the organism and end the Coordinator; True if there was something to stop.

    Raises:
        ClusterError: The cluster cannot be asked or joined.
        ConfigError: The token cannot be read or the state directory cannot be written.
    """
    desired.write_desired(settings, "stopped")
    report = probe(settings)
    if report.exit_code == 4:  # noqa: PLR2004
        raise ClusterError(report.reason, report.message)
    run = _Run(settings, OrganismSpec(organs=()), time.monotonic(), timeout_s, _silent)
    try:
        with _lock(settings, run.deadline):
            run.join()
            from seedcore import actor  # noqa: PLC0415 - needs Ray

            found = run.kill_coordinator(graceful=True)
            return bool(actor.kill_organs(settings.namespace)) or found
    finally:
        run.leave()


def _converge(run: _Run, *, retries: int, replace: bool, keep_desired: bool) -> Outcome:
    report = run.settle(replace=replace)
    action = run.decide(report, replace=replace)
    if action == "wait":
        report = run.wait()
        if report.healthy and not keep_desired:
            run.want_running()
        return run.outcome("none", report)
    run.action, run.changed = action, True
    run.join()
    if action == "reload":
        return _reload(run, report, keep_desired=keep_desired)
    if action == "replace":
        run.say(f"replacing the Coordinator: {run.why}")
        run.replace_process(report)
    if not keep_desired:
        run.want_running()
    while True:
        report = run.create()
        delay = BACKOFF_S[min(run.attempts, len(BACKOFF_S)) - 1]
        if report.reason != "init_failed":
            return run.outcome(action, report)
        run.cause = str(report.evidence.get("traceback", ""))
        run.clean_up()
        if run.attempts > retries or run.remaining() <= delay:
            if not keep_desired:
                # Nothing is left, and nobody shall go on trying behind the operator's back.
                desired.write_desired(run.settings, "stopped", config=run.spec.source)
            return run.outcome(action, report)
        run.say(f"attempt {run.attempts} failed: {report.message}; trying again in {delay:g} s")
        time.sleep(delay)


def _reload(run: _Run, report: Report, *, keep_desired: bool) -> Outcome:
    run.say(f"reloading: {run.why}")
    answer = run.reload()
    if answer is not None and answer["success"] is not True:
        # Everything is as it was, but for the organs that had to come back.
        run.cause = str(answer.get("traceback") or "")
        message = f"the running organism was not changed: {answer['error']}"
        evidence = {"traceback": run.cause}
        bad = dataclasses.replace(report, healthy=False, status=UNHEALTHY, reason="init_failed", message=message)
        return run.outcome("reload", dataclasses.replace(bad, evidence=evidence))
    if answer is not None and not keep_desired:
        run.want_running()
    return run.outcome("reload", run.wait())


class _Run:
    """One run of bootstrap: its deadline, its counters, and its connection to Ray if it needs one."""

    def __init__(
        self,
        settings: Settings,
        spec: OrganismSpec,
        started: float,
        timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.spec = spec
        self.deadline = started + timeout_s
        self.say = say
        self.action = "none"
        self.changed = False
        self.attempts = 0
        self.cause = ""
        self.why = ""
        self.fingerprint = spec.fingerprint()
        self._started = started
        self._timeout_s = timeout_s
        self._joined = False

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def probe(self) -> Report:
        """Ask once."""
        return probe(self.settings, timeout_s=max(1.0, min(3.0, self.remaining())))

    def settle(self, *, replace: bool) -> Report:
        """Probe; give a process that does not answer, or has not said what it is, a moment to do so."""
        patience = time.monotonic() + min(UNRESPONSIVE_GRACE_S, self._timeout_s * UNRESPONSIVE_GRACE_SHARE)
        while True:
            report = self.probe()
            zombie = bool(report.evidence.get("zombie"))
            unsure = report.reason in {"not_responding", "stale"} or (
                report.status == INITIALIZING and "fingerprint" not in report.coordinator
            )
            if replace or zombie or not unsure or time.monotonic() >= patience:
                return report
            time.sleep(_POLL_S)

    def decide(self, report: Report, *, replace: bool) -> str:
        """``create``, ``replace``, ``reload`` or ``wait``; the reason for a change is kept in :attr:`why`."""
        if report.exit_code == 3:  # noqa: PLR2004 - nothing there
            return "create"
        if report.reason == "init_failed" and report.coordinator.get("state") == "DEAD":
            return "create"
        found = report.coordinator
        here = release.release_id()
        if replace:
            self.why = "asked to"
        elif report.reason in {"not_responding", "stale", "init_failed"}:
            self.why = report.message
        elif found.get("release", here) != here:
            self.why = f"it is of release {found['release']}, not {here}"
        elif found.get("fingerprint", self.fingerprint) != self.fingerprint:
            self.why = "its configuration is another one"
            if found.get("organism_initialized"):
                return "reload"
        elif report.reason == "organs_down" and not found.get("organism_initialized"):
            self.why = report.message
        else:
            return "wait"
        return "replace"

    def join(self) -> None:
        """Join the cluster as a driver.

        Raises:
            ClusterError: Ray does not let us in, or not in time.
        """
        import ray  # noqa: PLC0415 - the commands that need no Ray must not load it

        if ray.is_initialized():
            return
        failure: list[BaseException] = []

        def connect() -> None:
            try:
                ray.init(
                    address=self.settings.address or "auto",
                    namespace=self.settings.namespace,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except BaseException as error:
                # Told to the caller's thread, whatever it is.
                failure.append(error)

        # In a thread because ray.init has no deadline: it blocks 40 s when the GCS is away.
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(min(JOIN_TIMEOUT_S, self.remaining()))
        if thread.is_alive():
            raise ClusterError("unreachable", f"Ray at {self.settings.address} does not let a driver in")
        if failure:
            raise ClusterError("unreachable", f"cannot join Ray at {self.settings.address}: {failure[0]}")
        self._joined = True

    def leave(self) -> None:
        """Leave the cluster if this run has joined it."""
        if self._joined:
            import ray  # noqa: PLC0415

            ray.shutdown()
            self._joined = False

    def kill_coordinator(self, *, graceful: bool = False) -> bool:
        """End the Coordinator's process for good, its name is free then; False if there is none."""
        import ray  # noqa: PLC0415
        from ray.exceptions import RayError  # noqa: PLC0415

        from seedcore import actor  # noqa: PLC0415

        handle = actor.coordinator_handle(self.settings.namespace)
        if handle is None:
            return False
        if graceful:
            with contextlib.suppress(RayError, TimeoutError):
                # One that hangs cannot stop anything: its organs are killed by the caller.
                ray.get(handle.shutdown.remote(), timeout=max(0.1, min(GRACEFUL_S, self.remaining() - 2.0)))
        ray.kill(handle, no_restart=True)
        return True

    def replace_process(self, report: Report) -> None:
        """End a Coordinator for good, also one that hangs."""
        pid, node_id = report.coordinator.get("pid"), report.coordinator.get("node_id")
        started = processes.start_ticks(pid)
        self.kill_coordinator()
        if report.reason in {"not_responding", "stale"}:
            # Ray only asks a process to end, and takes its time with one that cannot hear; its port is needed now.
            processes.kill_actor(pid, node_id=node_id, started=started)

    def create(self) -> Report:
        """Create the Coordinator and wait for what becomes of it."""
        from seedcore import actor  # noqa: PLC0415

        self.attempts += 1
        values = {
            "namespace": self.settings.namespace,
            "dashboard_url": self.settings.dashboard_url,
            "http_host": self.settings.http_host,
            "http_port": self.settings.http_port,
            "http_tls_cert": str(self.settings.http_tls_cert) if self.settings.http_tls_cert else None,
            "http_tls_key": str(self.settings.http_tls_key) if self.settings.http_tls_key else None,
            "auth_enabled": self.settings.auth_enabled,
            "token_path": str(self.settings.token_path) if self.settings.token_path else None,
        }
        actor.create_coordinator(self.spec.to_dict(), values, namespace=self.settings.namespace, attempt=self.attempts)
        return self.wait()

    def reload(self) -> dict[str, Any] | None:
        """Let the Coordinator become this organism in place; its answer, None if it goes on beyond the deadline."""
        import ray  # noqa: PLC0415
        from ray.exceptions import RayError  # noqa: PLC0415

        from seedcore import actor  # noqa: PLC0415

        handle = actor.coordinator_handle(self.settings.namespace)
        if handle is None:
            return {"success": False, "error": "there is no Coordinator any more"}
        # It has to be undone in time as well, if it fails.
        budget = max(1.0, self.remaining() * RELOAD_SHARE)
        deadline = time.monotonic() + max(1.0, self.remaining())
        said = ""
        try:
            reference: Any = handle.reload.remote(self.spec.to_dict(), budget)
            while not ray.wait([reference], timeout=_POLL_S)[0]:
                if time.monotonic() >= deadline:
                    return None
                report = self.probe()
                if report.status == INITIALIZING and report.message != said:
                    said = report.message
                    self.say(f"{report.status}: {said}")
            answer: dict[str, Any] = ray.get(reference, timeout=_FETCH_S)
        except RayError as error:
            return {"success": False, "error": f"the Coordinator died meanwhile: {str(error).splitlines()[0]}"}
        return answer

    def wait(self) -> Report:
        """Wait until the Coordinator is healthy, a creation has failed, or the time is over."""
        report = wait(
            self.settings,
            timeout_s=self.remaining(),
            interval_s=_POLL_S,
            on_change=lambda new: self.say(f"{new.status}: {new.message}"),
            allow_degraded=True,
        )
        if not report.healthy:
            return report
        return self._verified(report)

    def want_running(self) -> None:
        """Write down that this organism is wanted; a file that says so already is left alone."""
        wanted = desired.read_desired(self.settings)
        if wanted is None or (wanted.desired, wanted.fingerprint) != ("running", self.fingerprint):
            desired.write_desired(self.settings, "running", fingerprint=self.fingerprint, config=self.spec.source)

    def clean_up(self) -> None:
        """Leave no actor of a failed creation behind."""
        from seedcore import actor  # noqa: PLC0415

        actor.kill_organs(self.settings.namespace)

    def outcome(self, action: str, report: Report) -> Outcome:
        """Sum up."""
        changed = self.changed or (action != "none")
        return Outcome(
            action=action,
            changed=changed,
            attempts=self.attempts,
            elapsed_s=time.monotonic() - self._started,
            report=report,
            cause=self.cause,
        )

    def _verified(self, report: Report) -> Report:
        """Believe a healthy status only if a nonce comes back through every organ; tell degraded from healthy."""
        report = check_canary(self.settings, report, timeout_s=max(0.5, min(10.0, self.remaining())))
        return dataclasses.replace(report, healthy=report.healthy and not report.degraded)


@contextlib.contextmanager
def _lock(settings: Settings, deadline: float) -> Iterator[None]:
    """Let one bootstrap at a time run on this host.

    Raises:
        DeadlineError: Another one holds the lock until the deadline.
        ConfigError: The state directory cannot be written.
    """
    path = settings.state_dir / "bootstrap.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError((Fault(str(path), 0, 0, f"cannot be written: {error.strerror}"),)) from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DeadlineError("another bootstrap is running and did not end in time") from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _silent(_: str) -> None:
    pass
