"""Commands for the whole inbox of durable tasks: copy it, and restore it from a copy."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seedcore.cli.base import OK, manual
from seedcore.cli.render import out_json, plain
from seedcore.core.errors import ClusterError, SeedCoreError
from seedcore.core.settings import Settings

_COPY_TIMEOUT_S = 600.0
_CODES = (
    "0  done",
    "1  there is nothing to copy or restore, or the inbox that is there must not be replaced",
    "2  usage or configuration",
)


@click.group(
    epilog=manual(
        examples=[
            ("seedcore inbox copy", "copy it while it is in use"),
            ("seedcore inbox restore copy.sqlite3", "after the head is lost, before the Coordinator starts"),
        ],
        codes=_CODES,
    )
)
def inbox() -> None:
    """Copy the inbox of durable tasks, or restore it from a copy, on the head.

    playbooks/backup.yml and restore.yml use these commands.
    """


@inbox.command(epilog=manual(examples=[("seedcore inbox copy", "print where the copy is")], codes=_CODES))
def copy() -> int:
    """Copy the inbox into one file beside it, in place of an earlier copy.

    The Coordinator may run. Without one, the command copies the file itself.
    """
    settings = Settings.from_env()
    try:
        out_json(_ask(settings))
    except ClusterError:
        from seedcore.coordinator.inbox.copies import copy_closed

        out_json(copy_closed(settings.state_dir / "inbox"))
    return OK


@inbox.command(epilog=manual(examples=[("seedcore inbox restore copy.sqlite3", "")], codes=_CODES))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace an inbox with tasks that have not ended.")
@click.option(
    "--run-waiting", is_flag=True, help="Run all tasks that waited: nothing was executed after the copy was made."
)
def restore(*, file: Path, replace: bool, run_waiting: bool) -> int:
    """Put a copy in the place of the inbox; no Coordinator may have it open.

    Tasks that had not ended are parked for your decision, because they may have been executed since, except those that
    may be repeated.
    """
    from seedcore.coordinator.inbox.copies import restore as restore_copy

    told = restore_copy(file, Settings.from_env().state_dir / "inbox", replace=replace, run_waiting=run_waiting)
    out_json(told)
    return OK


def _ask(settings: Settings) -> Any:
    """Let the Coordinator copy it.

    Raises:
        SeedCoreError: It refuses.
        ClusterError: It does not answer.
    """
    from seedcore.status.http_client import ask_coordinator, stranger
    from seedcore.status.probing import why_silent

    try:
        answer = ask_coordinator(settings, "/coordinator/inbox/copy", method="POST", timeout_s=_COPY_TIMEOUT_S)
    except OSError as error:
        raise why_silent(settings, error) from error
    if answer.status == 200:  # noqa: PLR2004 - HTTP's ok
        return answer.body
    if isinstance(answer.body, dict) and "error" in answer.body:
        raise SeedCoreError(plain(answer.body["error"]))
    raise stranger(settings.http_url, answer.status, answer.body)
