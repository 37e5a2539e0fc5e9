"""Commands for durable tasks: list them, show one, and decide about it."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from seedcore.cli.base import OK, json_option, manual
from seedcore.cli.params import Text
from seedcore.cli.render import aligned, out, out_json, plain, say
from seedcore.cli.token import Lifetime
from seedcore.core.errors import SeedCoreError
from seedcore.core.settings import Settings
from seedcore.core.task import STATES

_TIMEOUT_S = 15.0
_CODES = (
    "0  done",
    "1  there is no such task, or its state does not allow it",
    "2  usage or configuration",
    "4  the Coordinator does not answer",
)
_SHORT = 60


@click.command(
    epilog=manual(
        examples=[
            ("seedcore tasks", "the newest durable tasks"),
            ("seedcore tasks --parked", "those that wait for your decision"),
            ("seedcore tasks --state failed --type pay --since 1d", "failed ones of a type, of the last day"),
        ],
        codes=_CODES,
    )
)
@click.option(
    "--state", "states", type=click.Choice(STATES), multiple=True, help="Only tasks in this state; repeatable."
)
@click.option("--parked", is_flag=True, help="Only tasks that wait for a decision: parked or failed.")
@click.option("--type", "kind", type=Text(), help="Only tasks of this type.")
@click.option("--since", type=Lifetime(), help="Only tasks accepted since then: 30d, 12h, 90m or 45s ago.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Largest number of tasks.")
@json_option
def tasks(
    *, states: tuple[str, ...], parked: bool, kind: str | None, since: float | None, limit: int, as_json: bool
) -> int:
    """List durable tasks, the newest first."""
    from urllib.parse import urlencode

    wanted = [*states, *(("parked", "failed") if parked else ())]
    query = {"state": ",".join(wanted), "type": kind, "since_s": since, "limit": limit}
    text = urlencode({name: value for name, value in query.items() if value})
    found = ask(Settings.from_env(), f"/coordinator/tasks?{text}")
    if as_json:
        out_json(found)
        return OK
    if not found:
        say("no such tasks")
        return OK
    rows = [[plain(cell)[:_SHORT] for cell in _row(task)] for task in found]
    for line in aligned(["ID", "STATE", "TYPE", "KEY", "ACCEPTED", "ATTEMPT", "EXECUTED", "ERROR"], rows):
        out(line)
    return OK


def _row(task: Mapping[str, Any]) -> list[str]:
    accepted = str(task["created"])[:19].replace("T", " ")
    error = f"{task['error_type']}: {task['error']}" if task.get("error") else ""
    return [
        task["id"], task["state"], task["type"], task["key"] or "", accepted, str(task["attempt"]),
        task["executed"] or "", error,
    ]  # fmt: skip


@click.group(
    epilog=manual(
        examples=[
            ("seedcore task show 1000000", "everything that is stored about a task"),
            ("seedcore task done 1000000", "a parked task whose effect is there"),
            ("seedcore task retry 1000000", "a parked or failed task that shall run again"),
            ("seedcore task discard 1000000", "a parked or failed task that nobody needs any more"),
            ("seedcore task cancel 1000000", "a task that has not ended"),
        ],
        codes=_CODES,
    )
)
def task() -> None:
    """Show a durable task, wait for it, or decide about it.

    A parked task may have been executed or not: its process died with it. Find out, and say it.
    """


@task.command(epilog=manual(examples=[("seedcore task show 1000000 --wait", "wait for its end")], codes=_CODES))
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
def show(*, task_id: str, wait: bool) -> int:
    """Print everything that is stored about a task, as JSON."""
    settings = Settings.from_env()
    while True:
        found = ask(settings, f"/coordinator/tasks/{quoted(task_id)}{'?wait_s=30' if wait else ''}", extra_s=30.0)
        if not wait or found["ended"] is not None:
            out_json(found)
            return OK


def _add_verb(verb: str, text: str) -> None:
    @task.command(verb, help=text, epilog=manual(examples=[(f"seedcore task {verb} 1000000", "")], codes=_CODES))
    @click.argument("task_id", metavar="ID")
    def decide(*, task_id: str) -> int:
        found = ask(Settings.from_env(), f"/coordinator/tasks/{quoted(task_id)}/{verb}", method="POST")
        out_json(found)
        return OK


for _verb, _text in {
    "retry": "Run a parked or failed task again.",
    "done": "Settle a parked or failed task as done; it does not run again.",
    "discard": "Give a parked or failed task up; it does not run again.",
    "cancel": "Cancel a task that has not ended. One that runs is cancelled by its organ.",
}.items():
    _add_verb(_verb, _text)


def quoted(task_id: str) -> str:
    """Return an id as a part of a path."""
    from urllib.parse import quote

    return quote(task_id, safe="") or "-"


def ask(settings: Settings, path: str, *, method: str = "GET", extra_s: float = 0.0) -> Any:
    """Ask the Coordinator; raise what it refuses.

    Raises:
        SeedCoreError: It refuses.
        ClusterError: It does not answer, or it is another program that does.
    """
    from seedcore.status.http_client import ask_coordinator, stranger
    from seedcore.status.probing import why_silent

    try:
        answer = ask_coordinator(settings, path, method=method, timeout_s=_TIMEOUT_S + extra_s)
    except OSError as error:
        raise why_silent(settings, error) from error
    if answer.status == 200:  # noqa: PLR2004 - HTTP's ok
        return answer.body
    if isinstance(answer.body, Mapping) and "error" in answer.body:
        raise SeedCoreError(plain(answer.body["error"]))
    raise stranger(settings.http_url, answer.status, answer.body)
