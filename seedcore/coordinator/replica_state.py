"""The state machine of a replica's process, from its creation to its end.

Pure decisions, with the time passed in. Only a new boot, a restart that Ray has counted, or an actor that is dead for
good counts as a death; a failed call proves only that the call failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from seedcore.coordinator.crash_loop import CrashLoop
from seedcore.core.organ_snapshot import ReplicaState, Snapshot

MAX_DEATHS_WHILE_STARTING = 3
DIED = "its process died"
_NOT_PLACED = frozenset({"DEPENDENCIES_UNREADY", "PENDING_CREATION"})


class Phase(StrEnum):
    """Phase of a process."""

    PLACING = "placing"  # there is no actor yet, or Ray has no resources for it
    STARTING = "starting"  # it has not answered yet
    ANSWERING = "answering"
    OVERDUE = "overdue"  # its report is late
    RESTARTING = "restarting"  # it has stopped answering, and Ray may be starting a new one
    PAUSED = "paused"  # it is in a crash loop
    ENDED = "ended"  # it was stopped for good


class Action(Enum):
    """The next action of a replica's supervision."""

    WAIT = auto()  # wait for the pending answer
    ASK = auto()  # ask again, after a moment
    CREATE = auto()  # create a new actor, the old one is dead
    KILL = auto()  # kill the process; Ray restarts it
    DISPOSE = auto()  # kill the actor for good and create a new one
    RETIRE = auto()  # let its tasks end, end the actor and create a new one
    MOVE = (
        auto()
    )  # kill the actor for good, although its process may learn of it only when its node is back; create a new one
    PAUSE = auto()  # kill the actor for good and create nothing for a while


@dataclass(frozen=True, slots=True)
class Row:
    """The GCS's row of an actor.

    Attributes:
        state: ``DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING`` or ``DEAD``.
        restarts: Number of restarts by Ray.
        cause: Cause of its last death, None if unknown.
        node_id: The node on which it was started last.
    """

    state: str
    restarts: int
    cause: str | None = None
    node_id: str | None = None


class Process:
    """The known state of a replica's process.

    Attributes:
        phase: Its phase.
        snapshot: Its last report, even if the process is gone.
        cause: Why it is, or was, not ready; None once it is healthy.
        restarts: Number of processes after the first one.
        pause_s: Length of a PAUSE in seconds.
        waits: Why its creation must wait, None if it need not.
    """

    def __init__(self) -> None:
        self.phase = Phase.PLACING
        self.snapshot: Snapshot | None = None
        self.cause: str | None = None
        self.restarts = 0
        self.pause_s = 0.0
        self.waits: str | None = None
        self._crashes = CrashLoop()
        self._missed = 0
        self._never_settled = True
        self._died_with: str | None = None
        # Whether the next boot is expected: its death is already counted, or we caused it.
        self._is_expected = False
        self._known_restarts: int | None = None

    @property
    def state(self) -> ReplicaState:
        """Return the state of the replica."""
        if self.phase is Phase.ENDED:
            return ReplicaState.STOPPED
        if self.phase is Phase.ANSWERING and self.snapshot is not None:
            return self.snapshot.state
        if self.phase in {Phase.PLACING, Phase.STARTING} and self.cause is None:
            return ReplicaState.STARTING
        return ReplicaState.DOWN

    @property
    def error(self) -> str | None:
        """Return one line that tells why the replica is not ready."""
        if self.phase is Phase.ENDED or self.state is ReplicaState.READY:
            return None
        if self.phase is Phase.ANSWERING and self.snapshot is not None:
            return self.snapshot.cause or self.cause
        if self.phase is Phase.PAUSED:
            return f"crash loop: {self.deaths} deaths, last: {self.cause}; next start in {self.pause_s:g} s"
        if self.waits:
            return f"{self.cause}; {self.waits}" if self.cause else self.waits
        return "its report is overdue" if self.phase is Phase.OVERDUE else self.cause

    @property
    def deaths(self) -> int:
        """Return the number of deaths since the last long life."""
        return self._crashes.deaths

    @property
    def has_given_up(self) -> bool:
        """Return whether it has died so often before it was ever ready that a first start does not wait for it."""
        return self._never_settled and self.deaths >= MAX_DEATHS_WHILE_STARTING

    @property
    def is_awaited(self) -> bool:
        """Return whether the answer may take as long as Ray needs to place and start a process."""
        return self.phase not in {Phase.ANSWERING, Phase.OVERDUE}

    def wait(self, why: str | None) -> None:
        """Record why it cannot be created yet; None once it can."""
        self.waits = why

    def created(self, row: Row | None) -> None:
        """Record that there is an actor, new or adopted."""
        self.phase = Phase.PLACING if row is not None and row.state in _NOT_PLACED else Phase.STARTING
        self._known_restarts = row.restarts if row is not None else None

    def answered(self, snapshot: Snapshot, now: float, *, leaving: bool = False) -> Action:
        """Record a report."""
        before, self.snapshot = self.snapshot, snapshot
        if before is None or before.boot == snapshot.boot:
            self._crashes.lives(now)
        else:
            self.restarts += 1
            if not self._is_expected:
                self._crashes.died(now)
                self._expect(1)
        self._missed, self._is_expected, self.phase = 0, False, Phase.ANSWERING
        if snapshot.stopping:
            # A stop was not finished: by a Coordinator that died, or a reload that was undone.
            return self.retire("it was being stopped")
        if leaving:
            return self.retire("its node is draining, it moves")
        if snapshot.is_blocked:
            return self._kill("every slot was held by a task that does not end", now)
        self._never_settled = self._never_settled and not snapshot.first_round_over
        if snapshot.state is ReplicaState.READY:
            self.cause = self._died_with = None
        return Action.ASK

    def silent(self, row: Row | None, now: float, *, threshold: int, is_node_away: bool = False) -> Action:
        """Record that no answer came in time, the GCS's row, and whether its node is or was cut off."""
        awaited = self.is_awaited
        if not awaited:
            self._missed += 1
            self.phase = Phase.OVERDUE
        if row is None:
            # The head does not answer. A kill might reach the process much later, when it is healthy again.
            return Action.WAIT
        if not awaited or is_node_away:
            # A kill does not reach such a node now. It would hit the process later, when it may be healthy.
            is_to_wait = self._missed < threshold or is_node_away
            return Action.WAIT if is_to_wait else self._kill("its process did not answer", now)
        if row.state == "DEAD":
            return self.dead(row.cause or DIED, now)
        if self._count(row, now):
            return self._pause()
        if row.state in _NOT_PLACED:
            # After a kill it would only queue again, at the end.
            self.phase = Phase.PLACING
        elif row.state == "ALIVE" and self._missed:
            # Alive for two full waits without an answer, for example adopted and hanging.
            return self._dispose("its process did not answer", now)
        elif row.state == "ALIVE":
            self._missed += 1
        return Action.WAIT

    def given_up(self, silence_s: float) -> Action:
        """Record that the process and its node have been silent for too long."""
        self.cause = f"its node has been silent for {silence_s:g} s, it is started elsewhere"
        self.phase, self._missed = Phase.PLACING, 0
        self._expect(0)
        return Action.MOVE

    def lost(self, text: str | None, row: Row | None, now: float) -> Action:
        """Record that a call failed; ``text`` is the cause, None if Ray reports the process away."""
        died = row is not None and (row.state == "RESTARTING" or row.restarts > (self._known_restarts or 0))
        if not self._is_expected or self.cause is None:
            self.cause = self._why((row and row.cause) or (DIED if died else text or "its process does not answer"))
        self.phase = Phase.RESTARTING
        return self._pause() if row is not None and self._count(row, now) else Action.ASK

    def dead(self, cause: str, now: float) -> Action:
        """Record that the actor is dead for good: killed from outside, or its constructor raised."""
        self.cause = self._why(cause)
        self._expect(0)
        self.phase = Phase.PLACING
        pause_s = self._crashes.died(now)
        return self._pause(pause_s) if pause_s else Action.CREATE

    def missed_by_task(self, task_type: str, *, is_dead: bool, may_have_run: bool) -> bool:
        """Record that a task found no process, or one that does not answer; return whether that is new."""
        if is_dead and may_have_run:
            self._died_with = task_type
        if self.phase is not Phase.ANSWERING and not (is_dead and self.phase is Phase.OVERDUE):
            return False
        self.phase = Phase.RESTARTING if is_dead else Phase.OVERDUE
        self.cause = self._why(DIED) if is_dead else self.cause
        return True

    def retire(self, why: str) -> Action:
        """Decide to replace a working process."""
        self.phase, self.cause = Phase.PLACING, why
        self._expect(0)
        return Action.RETIRE

    def end(self) -> None:
        """Record that it is stopped."""
        self.phase = Phase.ENDED

    def _why(self, cause: str) -> str:
        if self._died_with is None:
            return cause
        detail = "" if cause == DIED else f" ({cause})"
        return f"its process died with a task of type {self._died_with!r}{detail}"

    def _expect(self, restarts: int) -> None:
        """Expect a new boot that is not another death; Ray counts ``restarts`` for it."""
        self._is_expected = True
        if self._known_restarts is not None:
            self._known_restarts += restarts

    def _count(self, row: Row, now: float) -> float:
        """Count the deaths that Ray has seen; return for how long to pause, mostly 0."""
        known, self._known_restarts = self._known_restarts, max(row.restarts, self._known_restarts or 0)
        if known is None:
            return 0.0
        pause_s = 0.0
        for _ in range(row.restarts - known):
            self._is_expected = True
            pause_s = self._crashes.died(now) or pause_s
        self.pause_s = pause_s
        return pause_s

    def _kill(self, why: str, now: float) -> Action:
        """Replace a process that hangs; it counts as a death, because it may hang repeatedly."""
        self.cause, self._missed = why, 0
        self._expect(1)
        self.phase = Phase.RESTARTING
        pause_s = self._crashes.died(now)
        return self._pause(pause_s) if pause_s else Action.KILL

    def _dispose(self, why: str, now: float) -> Action:
        action = self._kill(why, now)
        self.phase = Phase.PAUSED if action is Action.PAUSE else Phase.PLACING
        return action if action is Action.PAUSE else Action.DISPOSE

    def _pause(self, pause_s: float | None = None) -> Action:
        self.pause_s = self.pause_s if pause_s is None else pause_s
        self.phase = Phase.PAUSED
        self._is_expected = True
        return Action.PAUSE
