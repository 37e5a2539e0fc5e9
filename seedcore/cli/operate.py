"""Commands of an operator: pause and resume an organ, replace its processes, drain and undrain a node."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from seedcore.cli.base import FAILED, OK, json_option, manual
from seedcore.cli.durable import ask, quoted
from seedcore.cli.params import Seconds
from seedcore.cli.render import out, out_json, plain, say
from seedcore.core.errors import ConfigError, Fault, SeedCoreError
from seedcore.core.settings import Settings

_POLL_S = 1.0
_CODES = (
    "0  done",
    "1  there is no such organ, process or node, or it was not done in time",
    "2  usage or configuration",
    "4  the Coordinator does not answer",
)


@click.command(
    epilog=manual(
        examples=[("seedcore pause pay", "begin no task of this organ until it is resumed")],
        codes=_CODES,
    )
)
@click.argument("organ")
@json_option
def pause(*, organ: str, as_json: bool) -> int:
    """Let an organ begin no task until it is resumed.

    Tasks that run go on. New ones wait in the organ's queue, within their deadlines; what the queue cannot hold is
    refused. Durable tasks wait in the inbox. The order outlives the Coordinator, and the status says it.
    """
    return _show(ask(Settings.from_env(), f"/coordinator/organs/{quoted(organ)}/pause", method="POST"), as_json=as_json)


@click.command(epilog=manual(examples=[("seedcore resume pay", "begin tasks again")], codes=_CODES))
@click.argument("organ")
@json_option
def resume(*, organ: str, as_json: bool) -> int:
    """Let a paused organ begin tasks again, those first that wait in its queue."""
    return _show(
        ask(Settings.from_env(), f"/coordinator/organs/{quoted(organ)}/resume", method="POST"), as_json=as_json
    )


def _show(found: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        out_json(found)
        return OK
    order = found["paused"]
    how = f"paused by {order['by']!r} since {order['since']}" if order else "not paused"
    runs = found["in_flight"] - found["queued"]
    out(plain(f"{found['organ_id']} is {how}: {runs} tasks run, {found['queued']} wait"))
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore replace pay", "every process of the organ, one after the other"),
            ("seedcore replace pay/1", "its second process"),
        ],
        codes=_CODES,
    )
)
@click.argument("process", metavar="ORGAN[/INDEX]")
@click.option("--timeout", type=Seconds(), default=300.0, show_default=True, help="Time limit of each process.")
@json_option
def replace(*, process: str, timeout: float, as_json: bool) -> int:
    """Replace the processes of an organ, or one of them, by new ones.

    Where there is room, the new process starts beside the old one, which ends after its tasks; else the old one ends
    first. If the new one does not start, nothing has changed.
    """
    settings = Settings.from_env()
    organ, slash, index = process.partition("/")
    if slash and not (index.isascii() and index.isdigit()):
        raise ConfigError((Fault("ORGAN[/INDEX]", 0, 0, f"got {process!r}, expected an index from 0, as in pay/0"),))
    done = []
    for number in [int(index)] if slash else _replicas(settings, organ):
        path = f"/coordinator/organs/{quoted(organ)}/replicas/{number}/replace?timeout_s={timeout:g}"
        done.append(ask(settings, path, method="POST", extra_s=timeout + 600.0))
        if not as_json:
            one = done[-1]
            where = one["to"] if one["from"] == one["to"] else f"{one['from']} to {one['to']}"
            out(plain(f"replaced {organ}[{number}] on {where} (pid {one['pid']}, {one['seconds']:.1f} s)"))
    if as_json:
        out_json(done)
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore drain worker-1", "move its organs away, and wait for that"),
            ("seedcore drain worker-1 --no-wait", "do not wait; `seedcore status` tells what is left"),
        ],
        codes=_CODES,
    )
)
@click.argument("node")
@click.option("--timeout", type=Seconds(), default=600.0, show_default=True, help="Time limit for the last process.")
@click.option("--no-wait", is_flag=True, help="Return at once; the Coordinator goes on.")
@json_option
def drain(*, node: str, timeout: float, no_wait: bool, as_json: bool) -> int:
    """Keep organs off a node, and move those away that are there, one process after the other.

    The Coordinator goes on if this command is interrupted or its time is over. The node stays in Ray's cluster, and
    Ray's own tasks and actors stay on it; the order outlives the Coordinator and a restart of the node.
    """
    settings = Settings.from_env()
    deadline = time.monotonic() + timeout
    found = ask(settings, f"/coordinator/nodes/{quoted(node)}/drain", method="POST")
    said = ""
    while found["left"] and not no_wait and time.monotonic() < deadline:
        if (text := _left(found)) != said:
            say(plain(f"left on {node}: {text}"))
            said = text
        time.sleep(_POLL_S)
        found = {**found, **_node(settings, node)}
    if as_json:
        out_json({key: found[key] for key in ("node", "drained", "left")})
    elif not found["left"]:
        out(plain(f"{node} is drained: no organ is left there"))
    if found["left"]:
        say(plain(f"left on {node}: {_left(found)}; the Coordinator goes on"))
    return OK if no_wait or not found["left"] else FAILED


@click.command(
    epilog=manual(
        examples=[("seedcore undrain worker-1", "allow organs there again; `seedcore rebalance` moves them back")],
        codes=_CODES,
    )
)
@click.argument("node")
@json_option
def undrain(*, node: str, as_json: bool) -> int:
    """Allow organs on a drained node again; those that have moved stay where they are until a rebalance."""
    found = ask(Settings.from_env(), f"/coordinator/nodes/{quoted(node)}/undrain", method="POST")
    if as_json:
        out_json(found)
    else:
        out(plain(f"organs may run on {node} again; `seedcore rebalance` moves them back"))
    return OK


def _left(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['organ_id']}[{one['replica']}] ({one['why']})" for one in found["left"])


def _status(settings: Settings) -> Mapping[str, Any]:
    """Return the Coordinator's status, healthy or not."""
    from seedcore.status.http_client import ask_coordinator, stranger
    from seedcore.status.probing import why_silent

    try:
        answer = ask_coordinator(settings, "/coordinator/status", timeout_s=15.0)
    except OSError as error:
        raise why_silent(settings, error) from error
    if not isinstance(answer.body, Mapping) or "organs" not in answer.body:
        raise stranger(settings.http_url, answer.status, answer.body)
    return answer.body


def _node(settings: Settings, name: str) -> Mapping[str, Any]:
    nodes = _status(settings)["nodes"]["list"]
    return next((node for node in nodes if node["node_name"] == name), {"left": []})


def _replicas(settings: Settings, organ: str) -> list[int]:
    organs = _status(settings)["organs"]
    found = next((one for one in organs if one["organ_id"] == organ), None)
    if found is None:
        known = ", ".join(one["organ_id"] for one in organs)
        raise SeedCoreError(plain(f"there is no organ {organ!r}, organs are: {known or 'none yet'}"))
    return [int(replica["replica"]) for replica in found["replicas"]]
