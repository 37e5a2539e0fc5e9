"""When to act: pure decisions over reports, with the time passed in."""

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
    """How patient the supervisor is; all but the counts in seconds.

    Attributes:
        interval_s: Between two probes.
        probe_timeout_s: For each request of a probe.
        hang_timeout_s: A Coordinator that does not answer for so long hangs, or is not where the settings say.
        init_stall_timeout_s: The same for one that initializes and whose stage and progress stand still. The
            organism's own start timeouts are the real bound; this one is for when they do not work.
        absent_timeout_s: A Coordinator that is not there for so long is not about to come.
        min_probes: How many probes in a row must agree, whatever the time says.
        max_kills: Kills for one kind of trouble; what they did not mend is replaced, with the present settings.
        backoff: Between one action and the next; health for its ``reset_after_s`` makes earlier trouble forgotten.
        bootstrap_timeout_s: For a bootstrap to succeed.
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
        """Probes further apart than this prove nothing about what was between them."""
        return 2 * (self.interval_s + 4 * self.probe_timeout_s)


@dataclass(frozen=True, slots=True)
class Action:
    """What to do now, and why.

    ``kill`` ends the process, which Ray starts again; ``bootstrap`` brings back what is not there; ``replace`` is a
    bootstrap that believes nothing of what is there. None where there is nothing to do.
    """

    remedy: Remedy | None
    why: str


@dataclass(frozen=True, slots=True)
class _Trouble:
    """One kind of trouble; as long as ``key`` stays equal it is the same one, in the same process."""

    key: tuple[object, ...]
    remedy: Remedy
    patience_s: float

    @property
    def kind(self) -> object:
        """What it is, in whatever process."""
        return self.key[0]


NOTHING = Action(None, "")


class Judge:
    """Remembers for how long there has been trouble, and how often it was acted on."""

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
        """Actions since things were last calm."""
        return self._actions

    def observe(self, report: Report, *, now: float, wanted: bool) -> Action:
        """Take in one report and say what to do.

        Args:
            report: The newest probe.
            now: Seconds of a monotonic clock.
            wanted: Whether the Coordinator is meant to run, and nobody else is working on it.
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
        """An action has just ended, whatever came of it: what is seen from now on is seen anew."""
        self._actions += 1
        self._not_before = now + self._policy.backoff.delay_s(self._actions)
        if self._proposed is not None:
            # A Coordinator that was replaced is another matter.
            kills = self._kills[self._proposed.kind] + 1 if self._proposed.remedy == "kill" else 0
            self._kills[self._proposed.kind] = kills
        self._trouble = self._proposed = None

    def postpone(self) -> None:
        """Somebody else is working on it: begin to count anew."""
        self._trouble = None

    def cannot_kill(self) -> None:
        """There was no process to kill behind the present trouble: only a replacement can mend it."""
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
        """Name the trouble; None for everything that is well, making progress, or not ours to mend."""
        policy, own = self._policy, report.coordinator
        process = (own.get("actor_id"), own.get("pid"))
        match report.reason:
            case Reason.NOT_RESPONDING if report.evidence.get("zombie"):
                # A head that has just come back may say so for a moment, until it has sorted out its own past.
                return _Trouble(("zombie", *process), "bootstrap", policy.hang_timeout_s)
            case Reason.NOT_RESPONDING if report.evidence.get("silence") in {"nobody_listens", "another_answers"}:
                # It does not hang: it is not where the settings say, and a new process of it would not be there either.
                return _Trouble(("elsewhere", *process), "replace", policy.hang_timeout_s)
            case Reason.NOT_RESPONDING:
                return self._kill(("hung", *process), policy.hang_timeout_s)
            case Reason.ABSENT | Reason.INIT_FAILED:
                return _Trouble((report.reason,), "bootstrap", policy.absent_timeout_s)
            case Reason.STARTING | Reason.RESTARTING:
                where = (own.get("state"), own.get("stage"), repr(own.get("progress")), own.get("init_attempts"))
                # An organism whose agents may take an hour says so; its own timeout has to have had its turn.
                allowed = 2 * _seconds(own.get("start_timeout_s"))
                return self._kill(("stalled", *process, *where), max(policy.init_stall_timeout_s, allowed))
            case _:
                # Organs are the Coordinator's own care; nodes, tokens, releases and room are the deployment's; an
                # unreachable head is restarted by its service; and who cannot ask does not know.
                return None

    def _kill(self, key: tuple[object, ...], patience_s: float) -> _Trouble:
        return _Trouble(key, "replace" if self._kills[key[0]] >= self._policy.max_kills else "kill", patience_s)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
