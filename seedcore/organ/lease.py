"""The lease that fences a process which was replaced while its host was frozen or cut off.

The Coordinator gives up an organ's process when the process and its node have been silent for ``OrganSpec.silence_s``,
and starts another one elsewhere. The old process may wake up. It accepts tasks only if it was confirmed as the current
one within the last ``OrganSpec.lease_s`` seconds: by a question of the Coordinator, or by Ray's head. The lease is the
shorter time, so it has expired before the Coordinator gives up.

A process that was frozen finds calls in its buffers that were sent before. Each call therefore carries the epoch that
its sender knows. Every expiry of the lease begins a new epoch, which only an answer to the Coordinator reveals.

Pure decisions, with the time passed in; it must come from a clock that goes on while the host is suspended.
"""

from __future__ import annotations


class Lease:
    """The time of the last confirmation that the process is the current one.

    Args:
        boot: Identifies the process.
        lease_s: Seconds for which a confirmation is valid.
        now: The present time; creation counts as a confirmation.
    """

    def __init__(self, boot: str, lease_s: float, now: float) -> None:
        self._boot = boot
        self._lease_s = lease_s
        self._confirmed_at = now
        self._number = 1
        self._is_held = True

    @property
    def epoch(self) -> str:
        """Return the epoch that a call must carry."""
        return f"{self._boot}.{self._number}"

    def age_s(self, now: float) -> float:
        """Return the seconds since the last confirmation."""
        return now - self._confirmed_at

    def lapses(self, now: float) -> bool:
        """Record an expiry of the lease; return True once per expiry."""
        if not self._is_held or self.age_s(now) < self._lease_s:
            return False
        self._is_held = False
        self._number += 1
        return True

    def confirm(self, asked_at: float, now: float) -> None:
        """Record that the process was the current one at ``asked_at``."""
        self._confirmed_at = max(self._confirmed_at, asked_at)
        self._is_held = self.age_s(now) < self._lease_s

    def admits(self, epoch: str | None) -> bool:
        """Return whether to accept a task from a sender with ``epoch``; None if the sender has none.

        The epoch of an earlier process of the same actor is accepted: a task that was sent to that process and arrives
        here has not been executed.
        """
        if not self._is_held:
            return False
        boot, _, number = (epoch or "").rpartition(".")
        return boot != self._boot or number == str(self._number)
