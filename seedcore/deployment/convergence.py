"""Decide the next step of bootstrap with pure functions of reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seedcore.core.reason import Reason, Status
from seedcore.status.report import Report
from seedcore.status.verdict import expected

Act = Literal["create", "replace", "reload", "wait", "give_up"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step and its reason; ``wait`` also means that a correct Coordinator must only be verified."""

    action: Act
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The wanted Coordinator: id of its release, fingerprint of its organism, where its durable tasks are."""

    release: str
    fingerprint: str
    inbox: str = ""

    @staticmethod
    def is_told(report: Report) -> bool:
        """Return whether the Coordinator itself has answered; only then its identity is known."""
        return "status" in report.coordinator

    def is_of(self, report: Report) -> bool:
        """Return whether the Coordinator is the wanted one; an unknown value is not equal."""
        return self.difference(report) is None

    def difference(self, report: Report) -> str | None:
        """Return in what the Coordinator differs: ``release``, ``inbox`` or ``fingerprint``; None if it does not."""
        found = report.coordinator
        if found.get("release") != self.release:
            return "release"
        if _inbox_of(found) != self.inbox:
            return "inbox"
        return None if found.get("fingerprint") == self.fingerprint else "fingerprint"


def decide(report: Report, ours: Identity, *, replace: bool = False, repeats: bool = False) -> Decision:
    """Return the next step for a report.

    Args:
        report: A report. A silent Coordinator has been silent for long enough.
        ours: The wanted Coordinator.
        replace: Whether to replace it in any case.
        repeats: Whether the caller is a supervisor, which leaves alone a Coordinator that it cannot ask because of a
            fault on its own side.
    """
    found, reason = report.coordinator, report.reason
    # The certificate differs from the settings: the settings are newer, and bootstrap applies them.
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


def _inbox_of(found: Mapping[str, Any]) -> str:
    inbox = found.get("inbox")
    # A release before this one had only this one.
    return "" if inbox is None else str(inbox.get("store") or "sqlite")


def _decide_on_an_answer(report: Report, ours: Identity) -> Decision:
    found = report.coordinator
    match ours.difference(report):
        case "release":
            return Decision("replace", f"it has release {found.get('release')}, not {ours.release}")
        case "inbox":
            there = _inbox_of(found)
            why = f"its durable tasks are in {there}, not in {ours.inbox}" if there and ours.inbox else ""
            return Decision("replace", why or f"it has {'no' if ours.inbox else 'an'} inbox for durable tasks")
        case "fingerprint" if report.status == Status.INITIALIZING and found.get("reason") == Reason.RELOADING:
            # It is being reloaded, maybe to the wanted organism.
            return Decision("wait")
        case "fingerprint":
            why = "its configuration differs"
            return Decision("reload" if found.get("organism_initialized") else "replace", why)
    if report.reason == Reason.ORGANS_DOWN and not found.get("organism_initialized"):
        return Decision("replace", report.message)
    return Decision("wait")


def judged(report: Report, ours: Identity) -> Report:
    """Turn a healthy report of another Coordinator bad."""
    if report.status != Status.HEALTHY:
        return report
    return expected(report, release=ours.release, fingerprint=ours.fingerprint)
