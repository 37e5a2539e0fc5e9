"""Commands that read the status; none of them joins Ray."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import click

from seedcore.cli.base import FAILED, OK, STATUS_CODES, UNKNOWN, check_together, json_option, load, manual
from seedcore.cli.params import Seconds, Text
from seedcore.cli.progress import Progress
from seedcore.cli.render import out, out_json, plain, report_block, say
from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings

if TYPE_CHECKING:
    from seedcore.status.report import Report

DEFAULT_WAIT_S = 300.0
DEFAULT_INTERVAL_S = 2.0
WAIT_INTERVAL_S = 0.5
FORMATS = ("table", "json", "yaml")


@click.command(
    epilog=manual(
        examples=[
            ("seedcore status", "show the present status"),
            ("seedcore status -o yaml", "print the full report"),
            ("seedcore status --watch", "refresh every 2 s; q ends"),
            ("seedcore status --wait --timeout 120 --canary", "wait until tasks are really executed"),
            ("seedcore status >/dev/null || page-somebody", "use the exit code in a script"),
        ],
        codes=STATUS_CODES,
    )
)
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), help="Output format.  [default: table]",
)  # fmt: skip
@json_option
@click.option("-w", "--watch", is_flag=True, help="Refresh until q or Ctrl-C.")
@click.option(
    "--interval",
    type=Seconds(),
    help=f"Seconds between probes; needs --watch or --wait. [default: {DEFAULT_INTERVAL_S:g}, {WAIT_INTERVAL_S:g}]",
)
@click.option("--wait", "wait_", is_flag=True, help="Wait until healthy, or until waiting cannot help.")
@click.option(
    "--timeout",
    type=Seconds(zero=True),
    help=f"Seconds to wait. [default: {DEFAULT_WAIT_S:.0f}; needs --wait]",
)
@click.option("--stable", type=Seconds(zero=True), help="Seconds that it must stay healthy; needs --wait.")
@click.option("--canary", is_flag=True, help="Every organ must return a nonce; needs --wait.")
@click.option("--while-healthy", is_flag=True, help="End at the first report that is not healthy; needs --wait.")
@click.option("--expected-release", type=Text(), metavar="ID", help="Unhealthy if another release runs.")
@click.option(
    "--expected-fingerprint", type=Text(), metavar="ID|config",
    help="Unhealthy if another organism runs; 'config' means the one in $SEEDCORE_CONFIG.",
)  # fmt: skip
@click.option("--expected-nodes", type=click.IntRange(min=1), metavar="N", help="Unhealthy if fewer nodes are alive.")
@click.option(
    "--expected-node", "expected_node", type=Text(), metavar="NAME", multiple=True,
    help="Unhealthy if no node of this name is alive; adds to $SEEDCORE_EXPECTED_NODES. Repeatable.",
)  # fmt: skip
@click.option("--only-expected", is_flag=True, help="Unhealthy if a node is alive whose name is not expected.")
@click.option("--allow-degraded", is_flag=True, help="Accept a degraded organism.")
def status(
    *,
    output: str | None,
    as_json: bool,
    watch: bool,
    interval: float | None,
    wait_: bool,
    timeout: float | None,
    stable: float | None,
    canary: bool,
    while_healthy: bool,
    expected_release: str | None,
    expected_fingerprint: str | None,
    expected_nodes: int | None,
    expected_node: tuple[str, ...],
    only_expected: bool,
    allow_degraded: bool,
) -> int:
    """Print the present status.

    The command compares the Coordinator's answer with the state that Ray's head records; it does not join Ray.
    docs/status.md explains every reason.
    """
    from seedcore.status.probing import probe, wait

    settings = Settings.from_env()
    if as_json and output not in {None, "json"}:
        raise click.UsageError(f"--json and --output {output} exclude each other")
    form = "json" if as_json else output or "table"
    of_wait = {
        "--timeout": timeout is not None, "--stable": stable is not None, "--canary": canary,
        "--while-healthy": while_healthy,
    }  # fmt: skip
    check_together("--wait", given=wait_, needing=of_wait)
    check_together("--watch or --wait", given=watch or wait_, needing={"--interval": interval is not None})
    if watch and wait_:
        raise click.UsageError("--watch and --wait exclude each other")
    names = dict.fromkeys((*settings.expected_nodes, *expected_node))
    settings = dataclasses.replace(settings, expected_nodes=tuple(names))
    if expected_fingerprint == "config":
        expected_fingerprint = load(settings, None).fingerprint()
    expectations: dict[str, Any] = {
        "expected_fingerprint": expected_fingerprint,
        "expected_release": expected_release,
        "expected_nodes": expected_nodes,
        "only_expected": only_expected,
        "allow_degraded": allow_degraded,
    }
    if watch:
        return _watch(settings, form, interval or DEFAULT_INTERVAL_S, expectations)
    if not wait_:
        report = probe(settings, **expectations)
    else:
        limit = DEFAULT_WAIT_S if timeout is None else timeout
        with Progress(limit_s=limit) as progress:
            report = wait(
                settings, timeout_s=limit, interval_s=interval or WAIT_INTERVAL_S, stable_s=stable or 0.0,
                canary=canary, on_change=lambda now: progress(f"{now.status}: {now.message}"),
                ends=(lambda now: not now.healthy) if while_healthy else None, **expectations,
            )  # fmt: skip
    _print(report, form)
    return report.exit_code


def _print(report: Report, form: str) -> None:
    if form == "json":
        out_json(report.to_dict())
    elif form == "yaml":
        out(_yaml(report))
    else:
        out(report_block(report))


def _yaml(report: Report) -> str:
    import yaml

    # JSON first: it turns values that YAML's safe writer rejects into text.
    plain_data = json.loads(json.dumps(report.to_dict(), default=str))
    return str(yaml.safe_dump(plain_data, sort_keys=False, allow_unicode=True)).rstrip()


def _watch(settings: Settings, form: str, interval_s: float, expectations: dict[str, Any]) -> int:
    """Show the status and refresh it; return the exit code of the last report."""
    from seedcore.cli.screen import Screen, leaving
    from seedcore.status.probing import probe

    report = probe(settings, **expectations)
    with leaving():
        if form == "table" and Screen.is_possible():
            with Screen() as screen:
                while True:
                    foot = f"{time.strftime('%H:%M:%S')}, every {interval_s:g} s, q ends"
                    screen.draw([*report_block(report).splitlines(), "", foot])
                    if screen.wait(interval_s):
                        break
                    report = probe(settings, **expectations)
        said = ""
        while not (form == "table" and Screen.is_possible()):
            key = json.dumps([report.status, report.reason, report.message, report.nodes], default=str)
            if form == "json":
                out(json.dumps(report.to_dict(), default=str))
            elif key != said:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                out(f"---\n{_yaml(report)}" if form == "yaml" else f"{stamp}\n{report_block(report)}\n")
            said = key
            time.sleep(interval_s)
            report = probe(settings, **expectations)
    return report.exit_code


@click.command(
    epilog=manual(
        examples=[
            ("seedcore top", "refresh every 2 s; q ends"),
            ("seedcore top --count 1", "print once, for example into a file"),
            ("seedcore top --json --interval 60 > top.jsonl", "write one line a minute"),
        ],
        codes=("0  ended by the user, or the count is reached", "2  usage or configuration"),
    )
)
@click.option(
    "--interval", type=Seconds(), default=DEFAULT_INTERVAL_S, show_default=True, help="Seconds between refreshes."
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Number of refreshes. [default: no limit]")
@json_option
def top(*, interval: float, count: int | None, as_json: bool) -> int:
    """Show rates, durations, queues and the last failures of the organs, live."""
    from seedcore.cli import coordinator_http
    from seedcore.cli.screen import Screen, leaving
    from seedcore.cli.top import document, frame
    from seedcore.status.probing import probe

    settings = Settings.from_env()
    seen: tuple[float, list[Any]] = (0.0, [])
    shown = 0

    def look() -> list[str]:
        nonlocal seen
        report = probe(settings)
        activity = coordinator_http.activity(settings)
        if as_json:
            return [document(report, activity)]
        age = None
        if report.coordinator.get("organs"):
            seen = (time.monotonic(), report.coordinator["organs"])
        elif seen[1]:
            # The Coordinator is away: show the last known organs.
            age = time.monotonic() - seen[0]
            report.coordinator["organs"] = seen[1]
        return frame(report, activity, seen_s=age)

    with leaving():
        if Screen.is_possible() and not as_json:
            with Screen() as screen:
                while True:
                    screen.draw([*look(), "", f"every {interval:g} s, q ends"])
                    shown += 1
                    if shown == count or screen.wait(interval):
                        return OK
        while True:
            out("\n".join([*look(), *([] if as_json else [""])]))
            shown += 1
            if shown == count:
                return OK
            time.sleep(interval)
    return OK


@click.command(
    epilog=manual(
        examples=[("seedcore ping", ""), ("seedcore ping --timeout 0.5", "give up after half a second")],
        codes=("0  pong", *STATUS_CODES[1:]),
    )
)
@click.option("--timeout", type=Seconds(), default=3.0, show_default=True, help="Seconds to wait for the answer.")
def ping(*, timeout: float) -> int:
    """Check that the Coordinator answers; prints pong."""
    from seedcore.status.http_client import coordinator_status
    from seedcore.status.probing import probe, why_silent

    settings = Settings.from_env()
    started = time.monotonic()
    try:
        answer = coordinator_status(settings, timeout_s=timeout)
    except OSError as error:
        trouble = why_silent(settings, error)
        say(f"{trouble.reason}: {plain(trouble)}")
        return probe(settings).exit_code or FAILED
    except ClusterError as trouble:
        say(f"{trouble.reason}: {plain(trouble)}")
        # Something answers on that port, but it is not the Coordinator.
        return UNKNOWN if trouble.reason == Reason.UNAUTHORIZED else FAILED
    out("pong")
    say(
        f"pid {answer.get('pid')} in {1000 * (time.monotonic() - started):.0f} ms, "
        f"{plain(answer.get('status'))}: {plain(answer.get('message', ''))}"
    )
    return OK
