"""The command that submits tasks."""
# ruff: noqa: PLC0415 - it imports what it needs when it runs

from __future__ import annotations

import json
import os
import stat
import uuid
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import click

from seedcore.cli.base import FAILED, OK, UNKNOWN, check_together, manual
from seedcore.cli.params import JsonObject, Seconds, Text, parse_object, read_stdin
from seedcore.cli.progress import TaskBar
from seedcore.cli.render import out, out_json, plain, say
from seedcore.core.settings import Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_IN_FLIGHT = 16
# A Coordinator that is being restarted is awaited so long.
ACCEPTED_WITHIN_S = 30.0
WAIT_S = 3600.0


class TaskType(Text):
    """A task type; for shell completion it asks the Coordinator for the known types."""

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's protocol
        param: click.Parameter,  # noqa: ARG002 - the same
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the task types of all organs that start with ``incomplete``."""
        from click.shell_completion import CompletionItem

        from seedcore.cli import coordinator_http

        try:
            known = coordinator_http.task_types(Settings.from_env())
        except Exception:
            # Completion must not print an error message.
            return []
        return [CompletionItem(kind, help=text) for kind, text in known if kind.startswith(incomplete)]


@click.command(
    epilog=manual(
        examples=[
            ("seedcore submit node_facts", "submit a task without params"),
            ("""seedcore submit echo --params '{"text": "hi"}'""", "with params"),
            ("seedcore submit keywords --params - < params.json", "read params from standard input"),
            ("seedcore submit - < task.json", "read a task: type, params, domain, ..."),
            ("seedcore submit --jsonl tasks.jsonl > outcomes.jsonl", "submit many tasks, one per line"),
            ("seedcore submit pay --durable --key order-17", "put it into the inbox"),
            ("generate | seedcore submit --jsonl - --in-flight 64", "submit tasks as they arrive"),
        ],
        codes=(
            "0  the task succeeded, or a durable one was accepted; with --jsonl, all tasks",
            "1  the task failed; with --jsonl, at least one",
            "2  usage or configuration; nothing was sent",
            "4  the Coordinator does not answer; with --jsonl, some tasks were not sent",
        ),
    )
)
@click.argument("task_type", metavar="[TYPE|-]", type=TaskType(), required=False)
@click.option(
    "--params",
    type=JsonObject(),
    metavar="JSON|-",
    help="Params of the task, or - to read them from stdin. [default: {}]",
)
@click.option("--domain", type=Text(), help="Prefer an organ of this domain.")
@click.option("--timeout", type=Seconds(), help="Time limit of the task in seconds. [default: the organ's limit]")
@click.option(
    "--jsonl",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE|-",
    help="Read many tasks, one JSON object per line. Prints one outcome per line, with the number of its line.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1000),
    help=f"Largest number of tasks in flight; needs --jsonl. [default: {DEFAULT_IN_FLIGHT}]",
)
@click.option("--unordered", is_flag=True, help="Print each outcome as soon as it arrives; needs --jsonl.")
@click.option(
    "--patience",
    type=Seconds(zero=True),
    help="Seconds to wait for a Coordinator that is away or busy; needs --jsonl. [default: 60]",
)
@click.option("--durable", is_flag=True, help="Put the task into the inbox, and return once it is on disk.")
@click.option("--key", type=Text(), help="Idempotency key: with the same key it stays one task; needs --durable.")
@click.option("--wait", is_flag=True, help="Wait for the end of a durable task, also across restarts; needs --durable.")
def submit(
    *,
    task_type: str | None,
    params: dict[str, Any] | None,
    domain: str | None,
    timeout: float | None,
    jsonl: str | None,
    in_flight: int | None,
    unordered: bool,
    patience: float | None,
    durable: bool,
    key: str | None,
    wait: bool,
) -> int:
    """Submit one task, or many, and print the answers as JSON.

    A task is {"type": ..., "params": {...}}, and may have "domain", "timeout_s", "id" and "description".
    --domain and --timeout apply to tasks that do not set these keys.
    """
    given = {"domain": domain, "timeout_s": timeout}
    defaults = {key: value for key, value in given.items() if value is not None}
    check_together("--durable", given=durable, needing={"--key": key is not None, "--wait": wait})
    send = partial(_durable, key=key, wait=wait) if durable else _one
    if jsonl is not None:
        if durable:
            raise click.UsageError('--jsonl excludes --durable; write "durable" and "key" into the tasks')
        if task_type is not None or params is not None:
            raise click.UsageError("--jsonl excludes TYPE and --params")
        return _many(
            Settings.from_env(), jsonl, defaults, in_flight=in_flight or DEFAULT_IN_FLIGHT, ordered=not unordered,
            patience_s=60.0 if patience is None else patience,
        )  # fmt: skip
    needing = {"--in-flight": in_flight is not None, "--unordered": unordered, "--patience": patience is not None}
    check_together("--jsonl", given=False, needing=needing)
    if task_type is None:
        raise click.UsageError(
            "Missing argument TYPE; give - to read one task from standard input, --jsonl to read many"
        )
    if task_type != "-":
        return send(Settings.from_env(), {"type": task_type, "params": params or {}, **defaults})
    if params is not None:
        raise click.UsageError("--params and - exclude each other: the task on standard input has its own params")
    try:
        task = parse_object(read_stdin())
    except ValueError as error:
        raise click.UsageError(f"standard input: {error}") from None
    return send(Settings.from_env(), {**defaults, **task})


def _one(settings: Settings, task: dict[str, Any]) -> int:
    from seedcore.cli import coordinator_http

    return _print_answer(coordinator_http.task(settings, task))


def _print_answer(answer: dict[str, Any]) -> int:
    out_json(answer)
    if answer["success"] is True or answer.get("accepted"):
        return OK
    say(f"{plain(answer.get('error_type', 'error'))}: {plain(answer.get('error', ''))}")
    return FAILED


def _durable(settings: Settings, task: dict[str, Any], *, key: str | None, wait: bool) -> int:
    """Submit a durable task; wait for it as long as it takes, whatever happens to the Coordinator meanwhile."""
    from seedcore.client import Client
    from seedcore.client.http_transport import NoAnswer

    # An unreadable token is a configuration error.
    settings.token()
    with Client(settings, transport="http") as client:
        key = key or task.get("key") or uuid.uuid4().hex
        answer = client.submit(task, durable=True, key=key, wait=False, timeout_s=ACCEPTED_WITHIN_S)
        if answer.get("accepted") and wait:
            say(f"accepted as task {answer['id']}, waiting for its end")
            while answer.get("accepted"):
                answer = client.submit(task, durable=True, key=key, timeout_s=WAIT_S)
    code = _print_answer(answer)
    return UNKNOWN if isinstance(answer, NoAnswer) else code


def _many(
    settings: Settings, path: str, defaults: dict[str, Any], *, in_flight: int, ordered: bool, patience_s: float
) -> int:
    from seedcore.cli import batch

    # Read the token before anything is sent: an unreadable token is a configuration error.
    settings.token()
    trouble = None
    unsent = 0
    with click.open_file(path, "rb") as stream, TaskBar(_count(stream)) as shown:
        outcomes = batch.run(
            settings, stream, in_flight=in_flight, patience_s=patience_s, defaults=defaults, ordered=ordered
        )
        for outcome in outcomes:
            shown.done += 1
            shown.failed += outcome.answer.get("success") is not True
            trouble = trouble or outcome.trouble
            unsent += outcome.trouble is not None and outcome.answer["executed"] == "no"
            out(json.dumps({"line": outcome.line, **outcome.answer}, default=str))
    say(
        f"{shown.done} tasks: {shown.done - shown.failed} succeeded, {shown.failed} failed, "
        f"in {shown.elapsed_s:.1f} s ({shown.per_s:.1f}/s)"
    )
    if trouble is not None:
        say(f"{trouble.reason}: {plain(trouble)}; stopped reading, and {unsent} tasks that were read were not sent")
        return UNKNOWN
    return OK if not shown.failed else FAILED


def _count(stream: IO[bytes]) -> int | None:
    """Count the tasks of a regular file, which can be read twice; return None for a pipe."""
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        place = stream.tell()
        count = sum(1 for line in stream if line.strip())
        stream.seek(place)
    except (OSError, ValueError):
        return None
    return count
