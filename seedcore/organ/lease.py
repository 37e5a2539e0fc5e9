"""Whether a process may take work: the lease that fences one which was replaced while its host was frozen or cut off.

The Coordinator gives an organ's process up when it and its node have been silent for ``OrganSpec.silence_s``, and
starts another elsewhere. The old one may wake up. It takes work only while somebody who knows has confirmed, not longer
than ``OrganSpec.lease_s`` ago, that it is the one: the Coordinator with each question, or Ray's head. The lease is the
shorter time, so it has run out before the Coordinator gives up.

A process that was frozen finds calls in its buffers that were sent before. Each call therefore names the epoch that its
sender believes in. Every lapse of the lease begins a new epoch, and only an answer to a question of the Coordinator
tells it.

Pure decisions, with the time passed in; it must come from a clock that goes on while the host is suspended.
"""

from __future__ import annotations


class Lease:
    """Remembers when the process was last confirmed to be the one.

    Args:
        boot: Names the process.
        lease_s: Seconds for which a confirmation holds.
        now: The process has just been created, and so confirmed.
    """

    def __init__(self, boot: str, lease_s: float, now: float) -> None:
        self._boot = boot
        self._lease_s = lease_s
        self._confirmed_at = now
        self._number = 1
        self._is_held = True

    @property
    def epoch(self) -> str:
        """What a sender must have been told to be heard."""
        return f"{self._boot}.{self._number}"

    def age_s(self, now: float) -> float:
        """Seconds since the last confirmation."""
        return now - self._confirmed_at

    def lapses(self, now: float) -> bool:
        """Note that the lease has run out; True once for each time that it has."""
        if not self._is_held or self.age_s(now) < self._lease_s:
            return False
        self._is_held = False
        self._number += 1
        return True

    def confirm(self, asked_at: float, now: float) -> None:
        """Take in that the process was the one when somebody was asked, or asked himself, at ``asked_at``."""
        self._confirmed_at = max(self._confirmed_at, asked_at)
        self._is_held = self.age_s(now) < self._lease_s

    def admits(self, epoch: str | None) -> bool:
        """Say whether work may be taken from a sender who believes in ``epoch``; None if he knows of none.

        The epoch of an earlier process of the same actor is none of ours: what was sent to that one and has arrived
        here has been done by nobody.
        """
        if not self._is_held:
            return False
        boot, _, number = (epoch or "").rpartition(".")
        return boot != self._boot or number == str(self._number)
