"""What bootstrap does next: pure decisions over reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seedcore.core.reason import Reason, Status
from seedcore.status.report import Report
from seedcore.status.verdict import expected

Act = Literal["create", "replace", "reload", "wait", "give_up"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why; ``wait`` also where everything is as it should be and only has to be verified."""

    action: Act
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the Coordinator has to be: id of its release, fingerprint of its organism."""

    release: str
    fingerprint: str

    @staticmethod
    def is_told(report: Report) -> bool:
        """Say whether the Coordinator itself has answered; only then it is known what it is."""
        return "status" in report.coordinator

    def is_of(self, report: Report) -> bool:
        """Say whether it is this one; what is not known is not equal."""
        return self.difference(report) is None

    def difference(self, report: Report) -> str | None:
        """Return in which word the Coordinator is another one: ``release``, ``fingerprint``; None if it is this one."""
        found = report.coordinator
        if found.get("release") != self.release:
            return "release"
        return None if found.get("fingerprint") == self.fingerprint else "fingerprint"


def decide(report: Report, ours: Identity, *, replace: bool = False, repeats: bool = False) -> Decision:
    """Say what to do about a Coordinator that is as ``report`` says.

    Args:
        report: A probe. One that is silent has been so for long enough.
        ours: What the Coordinator has to be.
        replace: Whether it is to be replaced in any case.
        repeats: Whether a supervisor asks: whoever it cannot ask for a fault of its own is left alone.
    """
    found, reason = report.coordinator, report.reason
    # A certificate that is not the one of the settings: the settings are newer, and bootstrap brings them.
    untrusted = bool(report.evidence.get("untrusted")) and not repeats
    if report.unknown and not untrusted:
        return Decision("give_up", report.message)
    if report.absent or (reason == Reason.INIT_FAILED and found.get("state") == "DEAD"):
        return Decision("create")
    if replace:
        return Decision("replace", "asked to")
    if untrusted or reason in {Reason.NOT_RESPONDING, Reason.INIT_FAILED}:
        return Decision("replace", report.message)
    if not Identity.is_told(report):
        return Decision("wait")
    return _decide_on_an_answer(report, ours)


def _decide_on_an_answer(report: Report, ours: Identity) -> Decision:
    found = report.coordinator
    match ours.difference(report):
        case "release":
            return Decision("replace", f"it is of release {found.get('release')}, not {ours.release}")
        case "fingerprint" if report.status == Status.INITIALIZING and found.get("reason") == Reason.RELOADING:
            # It is about to become another one, maybe this one.
            return Decision("wait")
        case "fingerprint":
            why = "its configuration is another one"
            return Decision("reload" if found.get("organism_initialized") else "replace", why)
    if report.reason == Reason.ORGANS_DOWN and not found.get("organism_initialized"):
        return Decision("replace", report.message)
    return Decision("wait")


def judged(report: Report, ours: Identity) -> Report:
    """Turn a report that is healthy, but not of ours, bad."""
    if report.status != Status.HEALTHY:
        return report
    return expected(report, release=ours.release, fingerprint=ours.fingerprint)
