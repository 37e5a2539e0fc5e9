"""Decide when the supervisor acts: pure functions of reports, with the time passed in."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from seedcore.core.backoff import Backoff
from seedcore.core.reason import Reason

if TYPE_CHECKING:
    from seedcore.status.report import Report

Remedy = Literal["kill", "bootstrap", "replace"]
BACKOFF = Backoff.doubling(5.0, 300.0, reset_after_s=120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The time limits of the supervisor, in seconds, and its counts.

    Attributes:
        interval_s: Time between probes.
        probe_timeout_s: Time limit of each request of a probe.
        hang_timeout_s: A Coordinator that is silent for this long hangs, or is not at the address in the settings.
        init_stall_timeout_s: The same for one that initializes without progress. The organism's own start timeouts
            are the real limit; this one applies if they fail.
        absent_timeout_s: A Coordinator that is absent for this long is not about to start.
        min_probes: Number of probes in a row that must agree, in addition to the time.
        max_kills: Kills for one kind of trouble; after that, the Coordinator is replaced with the present settings.
        backoff: Pauses between actions; after ``reset_after_s`` of health, earlier trouble no longer counts.
        bootstrap_timeout_s: Time limit of a bootstrap.
    """

    interval_s: float = 2.0
    probe_timeout_s: float = 3.0
    hang_timeout_s: float = 15.0
    init_stall_timeout_s: float = 600.0
    absent_timeout_s: float = 5.0
    min_probes: int = 3
    max_kills: int = 2
    backoff: Backoff = BACKOFF
    bootstrap_timeout_s: float = 120.0

    @property
    def gap_s(self) -> float:
        """Return the largest gap between probes; after a longer one, earlier observations no longer count."""
        return 2 * (self.interval_s + 4 * self.probe_timeout_s)


@dataclass(frozen=True, slots=True)
class Action:
    """The next action and its reason.

    ``kill`` ends the process, which Ray restarts; ``bootstrap`` starts a missing Coordinator; ``replace`` is a
    bootstrap that replaces an existing one in any case. None if there is nothing to do.
    """

    remedy: Remedy | None
    why: str


@dataclass(frozen=True, slots=True)
class _Trouble:
    """One kind of trouble; with an equal ``key`` it is the same trouble in the same process."""

    key: tuple[object, ...]
    remedy: Remedy
    patience_s: float

    @property
    def kind(self) -> object:
        """Return the kind of trouble, in any process."""
        return self.key[0]


NOTHING = Action(None, "")


class Judge:
    """Track for how long there has been trouble, and how many actions were taken."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._trouble: _Trouble | None = None
        self._since = 0.0
        self._probes = 0
        self._last_seen: float | None = None
        self._actions = 0
        self._not_before = 0.0
        self._healthy_since: float | None = None
        self._kills: Counter[object] = Counter()
        self._proposed: _Trouble | None = None

    @property
    def actions(self) -> int:
        """Return the number of actions since the last healthy period."""
        return self._actions

    def observe(self, report: Report, *, now: float, wanted: bool) -> Action:
        """Record one report and return the next action.

        Args:
            report: The newest report.
            now: Seconds of a monotonic clock.
            wanted: Whether the Coordinator should run, and nobody else is working on it.
        """
        gap = self._last_seen is not None and now - self._last_seen > self._policy.gap_s
        self._last_seen = now
        self._note_health(report, now, gap=gap)
        trouble = self._diagnose(report) if wanted else None
        if trouble is None:
            self._trouble = None
            return NOTHING
        if gap or self._trouble is None or trouble.key != self._trouble.key:
            self._since, self._probes = now, 0
        self._trouble = trouble
        self._probes += 1
        lasted = now - self._since
        if self._probes < self._policy.min_probes or lasted < trouble.patience_s or now < self._not_before:
            return NOTHING
        self._proposed = trouble
        return Action(trouble.remedy, f"{report.reason} for {lasted:.0f} s: {report.message}")

    def acted(self, *, now: float) -> None:
        """Record that an action has ended, successful or not; observations restart from here."""
        self._actions += 1
        self._not_before = now + self._policy.backoff.delay_s(self._actions)
        if self._proposed is not None:
            # After a replacement the trouble is a new one.
            kills = self._kills[self._proposed.kind] + 1 if self._proposed.remedy == "kill" else 0
            self._kills[self._proposed.kind] = kills
        self._trouble = self._proposed = None

    def postpone(self) -> None:
        """Restart the observations, because somebody else is working on it."""
        self._trouble = None

    def cannot_kill(self) -> None:
        """Record that there was no process to kill, so only a replacement can help."""
        if self._trouble is not None:
            self._kills[self._trouble.kind] = self._policy.max_kills

    def _note_health(self, report: Report, now: float, *, gap: bool) -> None:
        if report.status != "healthy" or gap:
            self._healthy_since = None
        elif self._healthy_since is None:
            self._healthy_since = now
        else:
            healthy_s = now - self._healthy_since
            self._actions = self._policy.backoff.still_counting(self._actions, healthy_s=healthy_s)
            if not self._actions:
                self._not_before = 0.0
                self._kills.clear()

    def _diagnose(self, report: Report) -> _Trouble | None:
        """Return the trouble; None if the Coordinator is healthy, makes progress, or cannot be repaired here."""
        policy, own = self._policy, report.coordinator
        process = (own.get("actor_id"), own.get("pid"))
        match report.reason:
            case Reason.NOT_RESPONDING if report.evidence.get("zombie"):
                # A head that has just restarted may report this for a moment, until it has reconciled its state.
                return _Trouble(("zombie", *process), "bootstrap", policy.hang_timeout_s)
            case Reason.NOT_RESPONDING if report.evidence.get("silence") in {"nobody_listens", "another_answers"}:
                # It does not hang: it is not at the address in the settings, nor would a new process be.
                return _Trouble(("elsewhere", *process), "replace", policy.hang_timeout_s)
            case Reason.NOT_RESPONDING:
                return self._kill(("hung", *process), policy.hang_timeout_s)
            case Reason.ABSENT | Reason.INIT_FAILED if not own.get("organism_initialized"):
                return _Trouble((report.reason,), "bootstrap", policy.absent_timeout_s)
            case Reason.STARTING | Reason.RESTARTING:
                where = (own.get("state"), own.get("stage"), repr(own.get("progress")), own.get("init_attempts"))
                # An organism whose agents may take an hour reports that; its own timeout must apply first.
                allowed = 2 * _seconds(own.get("start_timeout_s"))
                return self._kill(("stalled", *process, *where), max(policy.init_stall_timeout_s, allowed))
            case _:
                # The Coordinator supervises organs; the deployment handles nodes, tokens, releases and resources, and
                # a release whose organs have not started beside the old ones; a service restarts an unreachable head;
                # and without an answer, the state is unknown.
                return None

    def _kill(self, key: tuple[object, ...], patience_s: float) -> _Trouble:
        return _Trouble(key, "replace" if self._kills[key[0]] >= self._policy.max_kills else "kill", patience_s)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
