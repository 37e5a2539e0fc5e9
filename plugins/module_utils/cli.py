"""Run a command on the host within a deadline, and read the report that the seedcore command line prints.

It uses only the standard library and this directory, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.seedcore.cluster.plugins.module_utils import users

USAGE_ERROR = 2
# Reasons that the command line itself cannot report, with their remedies.
NOT_INSTALLED = "not_installed"
_REMEDIES = {
    NOT_INSTALLED: "Deploy.",
    "cli_failed": "Read the last output of the command line in the message.",
    "usage": "Fix the arguments that the message names.",
}
# Exit codes of a shell and of our wrapper if there is nothing to run.
_NOT_THERE = frozenset({3, 126, 127})
_MAX_OUTPUT_BYTES = 8 * 1024 * 1024
_TAIL_CHARS = 2000


class UsageError(Exception):
    """The command line rejected its options or its configuration; a retry cannot help."""


@dataclass(frozen=True)
class Answer:
    """Result of a command; ``rc`` is None if it was killed at its deadline, -1 if it could not be run."""

    rc: int | None
    stdout: str
    stderr: str


def run(
    argv: Sequence[str], *, timeout_s: float, environ: Mapping[str, str] | None = None, user: str | None = None
) -> Answer:
    """Run ``argv`` for at most ``timeout_s`` seconds; kill its whole process group at the deadline.

    With ``user``, root runs it as that user. Output goes to files and not to pipes, because a grandchild that keeps a
    pipe open would block this process for ever.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(  # noqa: S603 - a list, no shell
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **users.environment(user), **(environ or {})},
                start_new_session=True,
                **users.popen_options(user),
            )
        except OSError as error:
            return Answer(-1, "", f"{argv[0]}: {error.strerror}")
        except LookupError as error:
            return Answer(-1, "", f"{argv[0]}: {error}")
        rc: int | None
        try:
            rc = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            rc = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Answer(rc, _read(out), _read(err))


def overrides(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment with which the executable uses another namespace or address than its settings.

    In a deployment's wrapper its settings override the variables of the user, except those in SEEDCORE_OVERRIDE.
    """
    given = {"RAY_NAMESPACE": params.get("namespace"), "RAY_ADDRESS": params.get("address")}
    chosen = {name: str(value) for name, value in given.items() if value is not None}
    if chosen:
        chosen["SEEDCORE_OVERRIDE"] = " ".join(f"{name}={value}" for name, value in chosen.items())
    return chosen


def document(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON document on stdout, or None if there is none.

    Raises:
        UsageError: The command ended with exit code 2; the text is its output.
    """
    if answer.rc == USAGE_ERROR:
        raise UsageError(_tail(answer.stderr) or _tail(answer.stdout) or "the command line was rejected (exit code 2)")
    try:
        found = json.loads(answer.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def report(found: Mapping[str, Any] | None, answer: Answer, *, what: str, timeout_s: float) -> dict[str, Any]:
    """Return all documented keys, from the output of the command or instead of it.

    Args:
        found: The printed status report, if any.
        answer: The result of the command.
        what: The command, for the message.
        timeout_s: Its time limit in seconds, for the message.
    """
    if found is not None and isinstance(found.get("reason"), str):
        return complete(found)
    last = _tail(answer.stderr).splitlines()[-1:] or ["it printed nothing"]
    if answer.rc is None:
        return unhealthy("cli_failed", f"{what} did not answer within {timeout_s:g} s")
    if answer.rc in _NOT_THERE or answer.rc < 0:
        return unhealthy(NOT_INSTALLED, f"{what} cannot be run: {last[0]}")
    return unhealthy("cli_failed", f"{what} ended with exit code {answer.rc} and no report: {last[0]}")


def unhealthy(reason: str, message: str) -> dict[str, Any]:
    """Return a report for a state that the command line itself cannot report."""
    return complete({"status": "unhealthy", "reason": reason, "message": message})


def complete(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return every documented key of a report, whatever keys a release prints."""
    nodes = dict(found.get("nodes") or {})
    reason = str(found.get("reason") or "unknown")
    return {
        "healthy": bool(found.get("healthy", False)),
        "status": str(found.get("status") or "unhealthy"),
        "reason": reason,
        "message": str(found.get("message") or ""),
        "remedy": str(found.get("remedy") or _REMEDIES.get(reason, "")),
        "help": "" if reason == "ready" else f"docs/status.md#{reason}",
        "degraded": bool(found.get("degraded", False)),
        "coordinator": dict(found.get("coordinator") or {}),
        "nodes": {
            **nodes,
            "alive": int(nodes.get("alive") or 0),
            "expected": int(nodes.get("expected") or 0),
            "missing": list(nodes.get("missing") or []),
            "names": list(nodes.get("names") or []),
        },
        "evidence": dict(found.get("evidence") or {}),
    }


def _read(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read(_MAX_OUTPUT_BYTES).decode("utf-8", "replace"))


def _tail(text: str) -> str:
    return text.strip()[-_TAIL_CHARS:]
