"""Run tiers of tests, in parallel where a plan has lanes, and print one table: python -m scripts.tiers NAME..."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from scripts.tier_list import PLANS, TIERS, Plan, Tier

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "build" / "reports"
# Lines of output shown for a tier that failed; its log has all of them.
SHOWN_LINES = 400
# Lines of pytest, Ansible, molecule and debootstrap that name a cause; the last of them are repeated above the table.
CAUSE = re.compile(r"^(E  |FAILED|ERROR|E: )|^(\S+ )?(fatal|failed|error):|FAILED!|: FAILED in|\bError\b|failed for ")
CAUSE_LINES = 12
CAUSE_COLUMNS = 300
END_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """The result of one tier."""

    tier: str
    result: str
    seconds: float = 0.0
    tests: int | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Return True if this result fails the whole run."""
        return self.result == "FAILED"


@dataclass
class Runner:
    """Runs the tiers of a plan.

    Attributes:
        reports: Directory for each tier's log and, for pytest, its JUnit file.
        variables: Values of the placeholders in commands: ``{bin}``, ``{workers}``.
        tiers: All tiers by name.
        live: Show the output as it arrives; for a single tier.
    """

    reports: Path
    variables: Mapping[str, str]
    tiers: Mapping[str, Tier] = field(default_factory=lambda: TIERS)
    live: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopping: bool = False

    def run(self, plan: Plan) -> int:
        """Run a whole plan, even if tiers fail, and return the exit code."""
        self.reports.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        lanes: list[threading.Thread] = []
        try:
            for phase in plan:
                waiting = [list(lane) for lane in phase]
                lanes = [threading.Thread(target=self._lane, args=(own, waiting)) for own in waiting]
                for lane in lanes:
                    lane.start()
                for lane in lanes:
                    lane.join()
        except KeyboardInterrupt:
            self._stop()
            for lane in lanes:
                lane.join()
            say("interrupted")
        for name in (name for phase in plan for lane in phase for name in lane):
            if name not in {outcome.tier for outcome in self.outcomes}:
                self.outcomes.append(Outcome(name, "FAILED", note="did not run"))
        for outcome in self.outcomes:
            if outcome.failed and not self.live:
                say(last_words(outcome.tier, self.reports / f"{outcome.tier}.log"))
        say(table(self.outcomes, time.monotonic() - begun))
        return int(any(outcome.failed for outcome in self.outcomes))

    def _lane(self, own: list[str], waiting: list[list[str]]) -> None:
        """Run the tiers of a lane, then tiers that wait in the longest other lane."""
        while not self._stopping:
            with self._lock:
                lane = own or max(waiting, key=len)
                if not lane:
                    return
                name = lane.pop(0)
            self._one(self.tiers[name])

    def _one(self, tier: Tier) -> None:
        if reason := tier.missing():
            self._record(Outcome(tier.name, "skipped", note=reason))
            return
        say(f"{time.strftime('%H:%M:%S')} {tier.name}: begins")
        log = self.reports / f"{tier.name}.log"
        report = self.reports / f"{tier.name}.xml"
        report.unlink(missing_ok=True)
        begun = time.monotonic()
        with log.open("wb") as output:
            codes = [self._command(tier, command, report, output) for command in tier.commands]
        seconds = time.monotonic() - begun
        tests, skipped = junit(report)
        code = next((code for code in codes if code), 0)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if code in tier.skip_codes:
            outcome = Outcome(tier.name, "skipped", seconds, note=tier.skip_codes[code] or (lines or ["see above"])[-1])
        elif code:
            outcome = Outcome(tier.name, "FAILED", seconds, tests, f"exit code {code}; {log}")
            if not self.live:
                say("\n".join([f"==== {tier.name} ====", *lines[-SHOWN_LINES:], f"==== end of {tier.name} ===="]))
        else:
            outcome = Outcome(tier.name, "passed", seconds, tests, skipped)
        self._record(outcome)

    def _command(self, tier: Tier, command: Sequence[str], report: Path, output: IO[bytes]) -> int:
        """Run one command until it exits or exceeds the tier's limit, and return its exit code."""
        argv = [part.format_map({**self.variables, "report": str(report)}) for part in command]
        environ = {**os.environ, **({"PATH": f"{self.variables['bin']}:{os.environ['PATH']}"} if tier.on_path else {})}
        # Without bytecode files each process compiles what it imports, and Ray needs twice the CPU to start.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        target = None if self.live else output
        # A separate process group, so that end() also reaches the processes that the command has started.
        process = subprocess.Popen(  # noqa: S603 - what the list of tiers names
            argv, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=target, stderr=target, process_group=0
        )
        with self._lock:
            self._running[process.pid] = process
            if self._stopping:
                end(process, signal.SIGTERM)
        try:
            return process.wait(timeout=tier.limit_s)
        except subprocess.TimeoutExpired:
            say(f"{tier.name}: still running after {tier.limit_s:g} s, ending it")
            end_and_wait(process)
            return process.returncode or 1
        finally:
            with self._lock:
                del self._running[process.pid]

    def _record(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes.append(outcome)
        note = f" ({outcome.note})" if outcome.note else ""
        say(f"{time.strftime('%H:%M:%S')} {outcome.tier}: {outcome.result} in {outcome.seconds:.0f} s{note}")

    def _stop(self) -> None:
        """End the running commands: send SIGTERM, on which tests clean up, then kill what still runs."""
        with self._lock:
            self._stopping = True
            running = list(self._running.values())
        for process in running:
            end_and_wait(process)


def end_and_wait(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a command and its children, and kill them if the command does not exit in time."""
    end(process, signal.SIGTERM)
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        end(process, signal.SIGKILL)
        process.wait()


def end(process: subprocess.Popen[bytes], sent: signal.Signals) -> None:
    """Send a signal to a command and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sent)


def last_words(tier: str, log: Path) -> str:
    """Return the lines of a failed tier that name a cause, or its last lines, to be read without the whole output."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{tier}: no output"
    causes = [line for line in lines if CAUSE.search(line)] or lines
    return "\n".join([f"{tier}:", *(f"  {line[:CAUSE_COLUMNS]}" for line in causes[-CAUSE_LINES:])])


def junit(report: Path) -> tuple[int | None, str]:
    """Return the number of tests in a JUnit file and the reasons for skipped ones; None if it cannot be read."""
    try:
        root = ET.parse(report).getroot()  # noqa: S314 - pytest has just written it
    except (OSError, ET.ParseError):
        return None, ""
    reasons: dict[str, int] = {}
    for entry in root.iter("skipped"):
        reason = entry.get("message", "")
        reasons[reason] = reasons.get(reason, 0) + 1
    return len(list(root.iter("testcase"))), "; ".join(f"{count} skipped: {why}" for why, count in reasons.items())


def table(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Return the summary of a run as a Markdown table."""
    rows: list[tuple[str, ...]] = [("tier", "tests", "seconds", "result", "note")]
    for each in outcomes:
        tests = "" if each.tests is None else str(each.tests)
        rows.append((each.tier, tests, f"{each.seconds:.0f}", each.result, each.note.replace("|", "/")))
    failed = [each.tier for each in outcomes if each.failed]
    result = "FAILED" if failed else "passed"
    rows.append(("all", str(sum(each.tests or 0 for each in outcomes)), f"{seconds:.0f}", result, ", ".join(failed)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n" + "\n".join(f"| {line} |" for line in lines)


def say(text: str) -> None:
    """Print a text in one write and flush it, so that the output of parallel lanes does not mix."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, so that SIGTERM acts like Ctrl-C."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run the tiers and plans that ``arguments`` names, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.tiers", description="Run tiers of tests.")
    parser.add_argument(
        "names", nargs="+", choices=[*PLANS, *TIERS], metavar="NAME", help=f"{', '.join(PLANS)} or a tier"
    )
    parser.add_argument("--workers", default="2", help="processes of pytest in unit, ansible and integration")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    # A process that a shell starts in the background ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plan: Plan = [phase for name in options.names for phase in PLANS.get(name, [[[name]]])]
    variables = {"bin": str(Path(sys.executable).parent), "workers": options.workers}
    live = sum(len(lane) for phase in plan for lane in phase) == 1
    return Runner(REPORTS, variables, live=live).run(plan)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
