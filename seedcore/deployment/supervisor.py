"""The supervisor: watch the Coordinator from outside and repair faults that Ray does not detect.

Ray restarts a process that died. It reports an actor ALIVE that hangs or whose node is dead, and it forgets an actor
when the GCS loses its state. ``seedcore supervise`` runs on the head, without Ray in its process, and acts only on a
Coordinator that is wanted (``desired_state.py``) and that neither answers nor makes progress.

This module is the loop around the decisions: probe, decide, act, record; it stops cleanly within a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from seedcore.core import release
from seedcore.core.held_socket import Address
from seedcore.core.reason import Reason
from seedcore.core.state_file import lock, open_lock
from seedcore.deployment import desired_state
from seedcore.deployment.journal import Journal
from seedcore.deployment.sd_notify import notify, watchdog_s
from seedcore.deployment.socket_holder import SocketHolder
from seedcore.deployment.supervision_policy import Judge, Policy
from seedcore.status.host_processes import kill_actor, start_ticks
from seedcore.status.probing import probe
from seedcore.status.report import Report, report_of

if TYPE_CHECKING:
    from pathlib import Path

    from seedcore.core.settings import Settings
    from seedcore.deployment.supervision_policy import Action

logger = logging.getLogger(__name__)

LOCK_NAME = "supervise.lock"
# Extra time for joining Ray and the last probe, in addition to the time limit of bootstrap.
BOOTSTRAP_MARGIN_S = 45.0
CHILD_STOP_S = 0.5
TICK_S = 0.5
IDLE_S = 5.0
# A probe that exceeds its limits by this much will never end; systemd's watchdog must detect that.
PROBE_OVERDUE_S = 60.0
_STOP = object()


class Supervisor:
    """Watch one deployment until it is told to stop.

    Args:
        settings: The deployment; ``state_dir`` has the desired state, the journal and the locks.
        policy: Its time limits.
        bootstrap_command: Command that starts a Coordinator, without options; default: this interpreter's seedcore.

    Attributes:
        successor: The command that has to go on in place of this process once :meth:`run` has returned, or empty.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        policy: Policy | None = None,
        bootstrap_command: Sequence[str] = (),
    ) -> None:
        self.successor = ""
        # The expected nodes may change while it runs, and the gate checks them.
        self._settings = dataclasses.replace(settings, expected_nodes=())
        self._policy = policy or Policy()
        self._command = list(bootstrap_command) or [sys.executable, "-m", "seedcore", "bootstrap"]
        self._judge = Judge(self._policy)
        self._journal = Journal(settings.state_dir)
        # SimpleQueue, because a signal handler may call its put() at any moment.
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._child: _Child | None = None
        self._holder = SocketHolder(
            settings.state_dir,
            Address(settings.http_host, settings.http_port),
            is_wanted=self._is_wanted,
            speaks_tls=settings.http_tls_cert is not None,
        )
        self._process: tuple[Any, Any, int | None] = (None, None, None)
        self._said: tuple[Any, ...] = ()
        self._wanted_said: str | None = None
        self._trouble_since: float | None = None

    def run(self) -> int:
        """Supervise until SIGTERM, SIGINT or :meth:`stop`; return the exit code.

        Raises:
            ConfigError: The state directory cannot be written.
        """
        with _alone(self._settings.state_dir) as alone:
            if not alone:
                logger.error("another supervisor is running: state_dir=%s", self._settings.state_dir)
                return 1
            with self._signals(), self._holder:
                self._journal.write("started", pid=os.getpid())
                logger.info("watching: namespace=%s state_dir=%s", self._settings.namespace, self._settings.state_dir)
                notify("READY=1", "STATUS=watching")
                # A daemon thread: a probe that waits for a dead host must not delay the end.
                threading.Thread(target=self._keep_probing, name="probe", daemon=True).start()
                try:
                    self._loop()
                finally:
                    # The service goes on if another release takes over.
                    notify(*(["STATUS=another release takes over"] if self.successor else ["STOPPING=1"]))
                    self._stop_child()
                    if self.successor:
                        self._holder.pass_on()
                    self._journal.write("stopped", pid=os.getpid())
                    logger.info("stopped")
        return 0

    def stop(self) -> None:
        """Make :meth:`run` return; call it from any thread or signal handler."""
        self._events.put(_STOP)

    def _loop(self) -> None:
        watchdog = watchdog_s()
        longest = min(IDLE_S, watchdog / 3) if watchdog else IDLE_S
        asked_at: float | None = None
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if asked_at is None and now >= due:
                self._questions.put(None)
                asked_at = now
            if watchdog and (asked_at is None or now - asked_at < PROBE_OVERDUE_S):
                notify("WATCHDOG=1")
            nap = longest if asked_at is not None else min(longest, due - now)
            event = self._next_event(min(nap, TICK_S) if self._child else nap)
            if event is _STOP:
                return
            now = time.monotonic()
            if isinstance(event, Report):
                asked_at, due = None, now + self._policy.interval_s
                self._consider(event, now)
            self._look_after_child(now)
            if self._child is None and isinstance(event, Report) and (successor := release.successor()):
                logger.info("another release is active, it goes on: %s", successor)
                self.successor = successor
                return

    def _next_event(self, timeout_s: float) -> Any:
        try:
            return self._events.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    def _keep_probing(self) -> None:
        while True:
            self._questions.get()
            try:
                report = probe(self._settings, timeout_s=self._policy.probe_timeout_s)
            except Exception as error:
                # For example a token that is being replaced, or an unexpected answer: the state is unknown, go on.
                text = f"the probe failed: {type(error).__name__}: {error}"
                report = report_of(Reason.UNKNOWN, text)
            self._events.put(report)

    def _consider(self, report: Report, now: float) -> None:
        self._remember(report)
        wanted = self._wanted()
        self._tell(report, now)
        action = self._judge.observe(
            report, now=now, wanted=wanted is not None and wanted.desired == "running" and self._child is None
        )
        if action.remedy is None or wanted is None:
            return
        if _held_elsewhere(self._settings.state_dir / desired_state.LOCK_NAME):
            logger.info("not acting, a bootstrap is running: %s", action.why)
            self._judge.postpone()
        elif action.remedy == "kill":
            self._kill(report, action)
        else:
            self._bootstrap(wanted, action, now)

    def _kill(self, report: Report, action: Action) -> None:
        actor_id, pid, started = self._process
        node_id = report.coordinator.get("node_id")
        result = kill_actor(pid, node_id=node_id, started=started)
        if result.outcome != "killed":
            self._judge.cannot_kill()
        facts = {"actor_id": actor_id, "pid": pid, "outcome": result.outcome, "detail": result.detail}
        self._journal.write("kill", why=action.why, **facts)
        logger.warning(
            "kill the Coordinator: pid=%s outcome=%s (%s) why=%s", pid, result.outcome, result.detail, action.why
        )
        self._judge.acted(now=time.monotonic())

    def _bootstrap(self, wanted: desired_state.Desired, action: Action, now: float) -> None:
        arguments = ["--json", "--keep-desired", "--wait-timeout", f"{self._policy.bootstrap_timeout_s:g}"]
        # The desired state names its file, or the packaged one; the file of the environment must not replace it.
        environ = {**os.environ, "SEEDCORE_CONFIG": wanted.config or ""}
        replaces = action.remedy == "replace"
        arguments += ["--replace"] * replaces
        facts = {"config": wanted.config, "replace": replaces, "earlier_actions": self._judge.actions}
        self._journal.write("bootstrap", why=action.why, **facts)
        logger.warning("bootstrap: config=%s replace=%s why=%s", wanted.config or "packaged", replaces, action.why)
        deadline = now + self._policy.bootstrap_timeout_s + BOOTSTRAP_MARGIN_S
        try:
            self._child = _Child([*self._command, *arguments], environ, deadline)
        except OSError as error:
            self._bootstrap_ended(now, {"error": f"{self._command[0]}: {error.strerror}"})

    def _look_after_child(self, now: float) -> None:
        if self._child is None:
            return
        facts = self._child.poll(now)
        if facts is not None:
            self._child = None
            self._bootstrap_ended(now, facts)

    def _bootstrap_ended(self, now: float, facts: dict[str, Any]) -> None:
        self._judge.acted(now=now)
        pause = self._policy.backoff.delay_s(self._judge.actions)
        self._journal.write("bootstrap_ended", **facts, next_action_after_s=pause)
        level = logging.INFO if facts.get("healthy") else logging.ERROR
        text = " ".join(f"{key}={value}" for key, value in facts.items())
        logger.log(level, "bootstrap ended: %s; no further action for %g s", text, pause)

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._journal.write("bootstrap_ended", error="stopped together with the supervisor")
            self._child = None

    def _remember(self, report: Report) -> None:
        """Record when the Coordinator's process started, while the row with its pid is fresh."""
        actor_id, pid = report.coordinator.get("actor_id"), report.coordinator.get("pid")
        if (actor_id, pid) != self._process[:2]:
            self._process = (actor_id, pid, start_ticks(pid))

    def _is_wanted(self) -> bool:
        wanted = desired_state.read_desired(self._settings)
        return wanted is not None and wanted.desired == "running"

    def _wanted(self) -> desired_state.Desired | None:
        wanted = desired_state.read_desired(self._settings)
        word = wanted.desired if wanted else "unknown"
        if word != self._wanted_said:
            self._wanted_said = word
            logger.info("desired state: %s%s", word, "" if word == "running" else ", only watching")
        return wanted

    def _tell(self, report: Report, now: float) -> None:
        notify(f"STATUS={report.status}, {report.reason}: {report.message}")
        if (said := (report.status, report.reason, report.coordinator.get("pid"))) != self._said:
            self._said = said
            logger.info("status: %s reason=%s pid=%s message=%s", *said, report.message)
        if report.status == "healthy":
            if self._child is not None:
                # The bootstrap has repaired it, and counts as an action when it has ended.
                return
            if self._trouble_since is not None and self._judge.actions:
                self._journal.write(
                    "recovered", after_s=round(now - self._trouble_since, 1), actions=self._judge.actions
                )
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = now

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, lambda *_: self.stop())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Child:
    """A bootstrap in its own process, with a deadline; its messages go to our standard error."""

    def __init__(self, argv: list[str], environ: dict[str, str], deadline: float) -> None:
        self._deadline = deadline
        # A file and not a pipe, so that nobody has to read while it runs.
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        config = environ["SEEDCORE_CONFIG"]
        options = ["--config", config] if config else []
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a list, no shell
                [*argv, *options], stdin=subprocess.DEVNULL, stdout=self._output, env=environ
            )
        except OSError:
            self._output.close()
            raise

    def poll(self, now: float) -> dict[str, Any] | None:
        """Return its result once it has ended; kill it at the deadline."""
        code = self._process.poll()
        if code is None and now >= self._deadline:
            self._process.kill()
            code = self._process.wait()
        return None if code is None else self._end(code)

    def stop(self) -> None:
        """End it, with half a second for a clean exit."""
        self._process.terminate()
        try:
            self._process.wait(CHILD_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _end(self, code: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"exit_code": code}
        with self._output:
            self._output.seek(0)
            try:
                document = json.loads(self._output.read())
            except ValueError:
                return facts
        if isinstance(document, dict):
            keys = ("healthy", "action", "attempts", "elapsed_s", "reason", "message")
            facts.update({key: document[key] for key in keys if key in document})
        return facts


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Take the supervisor's lock of a state directory; return False if another one holds it.

    Raises:
        ConfigError: The directory cannot be written.
    """
    descriptor = open_lock(directory / LOCK_NAME)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _held_elsewhere(path: Path) -> bool:
    """Return whether somebody holds the lock; False if it does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
