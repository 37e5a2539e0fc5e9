"""Commands for schedules: list them, pause or resume one, run it now, delete it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from seedcore.cli.base import OK, json_option, manual
from seedcore.cli.durable import ask, quoted
from seedcore.cli.render import aligned, out, out_json, plain, say
from seedcore.core.settings import Settings

_CODES = (
    "0  done",
    "1  there is no such schedule, or it belongs to organism.yaml",
    "2  usage or configuration",
    "4  the Coordinator does not answer",
)


@click.command(
    epilog=manual(
        examples=[
            ("seedcore schedules", "all schedules, and when each is due"),
            ("seedcore schedules --json", "the same for programs"),
        ],
        codes=_CODES,
    )
)
@json_option
def schedules(*, as_json: bool) -> int:
    """List the schedules of durable tasks, with the next and the last planned moment in the schedule's time zone."""
    found = ask(Settings.from_env(), "/coordinator/schedules")
    if as_json:
        out_json(found)
        return OK
    if not found:
        say("no schedules")
        return OK
    rows = [[plain(cell) for cell in _row(one)] for one in found]
    for line in aligned(["ID", "WHEN", "FROM", "NEXT", "LAST", "LAST TASK", "MISSED", "OVERLAPPED"], rows):
        out(line)
    return OK


def _row(one: Mapping[str, Any]) -> list[str]:
    task = one["last_task"]
    due = "paused" if one["paused"] else _moment(one["next"]) or "over"
    last = f"{task['id']} {task['state']}" if task else ""
    return [
        one["id"], one["when"], one["source"], due, _moment(one["last_planned"]), last, str(one["missed"]),
        str(one["overlapped"]),
    ]  # fmt: skip


def _moment(text: str | None) -> str:
    return (text or "").replace("T", " ")


@click.group(
    epilog=manual(
        examples=[
            ("seedcore schedule pause nightly", "plan no tasks until it is resumed"),
            ("seedcore schedule run nightly", "one task now, beside its planned moments"),
        ],
        codes=_CODES,
    )
)
def schedule() -> None:
    """Pause or resume a schedule, run it now, or delete it.

    Schedules are made in organism.yaml, or by POST /coordinator/schedules.
    """


def _add_verb(verb: str, text: str) -> None:
    @schedule.command(
        verb, help=text, epilog=manual(examples=[(f"seedcore schedule {verb} nightly", "")], codes=_CODES)
    )
    @click.argument("schedule_id", metavar="ID")
    def change(*, schedule_id: str) -> int:
        path = f"/coordinator/schedules/{quoted(schedule_id)}"
        method, path = ("DELETE", path) if verb == "delete" else ("POST", f"{path}/{verb}")
        out_json(ask(Settings.from_env(), path, method=method))
        return OK


for _verb, _text in {
    "pause": "Plan no tasks until the schedule is resumed. It stays paused across deployments.",
    "resume": "Go on with the next planned moment; those of the pause get no task.",
    "run": "Put its task into the inbox now, beside the planned moments.",
    "delete": "Delete a schedule that was made over HTTP; its tasks stay. Remove one of organism.yaml there.",
}.items():
    _add_verb(_verb, _text)
