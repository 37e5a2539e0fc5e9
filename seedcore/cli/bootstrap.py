"""Commands that start, supervise and stop the Coordinator."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs, and Ray only where it must join the cluster

from __future__ import annotations

import os
import sys

import click

from seedcore.cli.base import FAILED, OK, STATUS_CODES, config_option, json_option, load, manual
from seedcore.cli.params import Seconds, Share
from seedcore.cli.progress import Progress
from seedcore.cli.render import out, out_json, plain, printable, report_block, say
from seedcore.core.settings import Settings


@click.command(
    epilog=manual(
        examples=[
            ("seedcore bootstrap", "use the file in $SEEDCORE_CONFIG"),
            ("seedcore bootstrap --config organism.yaml --wait-timeout 300", "allow a slow start"),
            ("seedcore bootstrap --bake 30", "compare new and old organs first"),
            ("seedcore bootstrap --dry-run", "print what it would do"),
        ],
        codes=STATUS_CODES,
    )
)
@config_option
@json_option
@click.option("--wait-timeout", type=Seconds(), default=60.0, show_default=True, help="Time limit to become healthy.")
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=2,
    show_default=True,
    help="Retries after a failed attempt.",
)
@click.option("--replace", is_flag=True, help="Replace a running Coordinator even if nothing has changed.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what it would do.")
@click.option(
    "--bake", type=Seconds(zero=True), default=0.0, show_default=True,
    help="Compare one new process of each changed organ with the old ones for this many more seconds.",
)  # fmt: skip
@click.option(
    "--bake-tolerance", type=Share(), default=0.5, show_default=True,
    help="Share by which the new process may be slower, larger, or fail more often.",
)  # fmt: skip
@click.option("--keep-desired", is_flag=True, hidden=True, help="For the supervisor: start the last desired organism.")
def bootstrap(
    *,
    config: str | None,
    as_json: bool,
    wait_timeout: float,
    retries: int,
    replace: bool,
    dry_run: bool,
    bake: float,
    bake_tolerance: float,
    keep_desired: bool,
) -> int:
    """Make sure that the Coordinator runs with this release and this configuration.

    If the running Coordinator already has both, the command changes nothing. With exit code 0 the organism is up. A
    terminal shows the progress in one line that changes, any other output in one line per change.
    """
    from seedcore.deployment.bootstrap import bootstrap as ensure
    from seedcore.deployment.desired_state import read_desired

    settings = Settings.from_env()
    wanted = read_desired(settings) if keep_desired else None
    # The file may have been edited since then, or an editor may be writing it right now.
    spec = wanted.spec if wanted is not None and wanted.spec is not None else load(settings, config, starts=True)

    with Progress(limit_s=wait_timeout) as progress:
        outcome = ensure(
            settings, spec, wait_timeout_s=wait_timeout, retries=retries, replace=replace, dry_run=dry_run,
            keep_desired=keep_desired, bake_s=bake, bake_tolerance=bake_tolerance, on_progress=progress,
        )  # fmt: skip
    if as_json:
        out_json(outcome.to_dict())
    else:
        would = "would " if dry_run else ""
        say(f"action: {would}{outcome.action} (attempts {outcome.attempts}, {outcome.elapsed_s:.1f} s)")
        if outcome.baked:
            say(f"baked: {outcome.baked}")
        out(report_block(outcome.report))
        if outcome.cause:
            # Ray adds an empty line after each line; --json keeps the text unchanged.
            say("\n".join(printable(line) for line in outcome.cause.splitlines() if line.strip()))
    if dry_run or outcome.report.healthy:
        return OK
    # Print it last, because people read a log from its end.
    say(f"{outcome.report.reason}: {plain(outcome.report.message)}")
    return outcome.report.exit_code


@click.command(
    epilog=manual(
        examples=[("seedcore supervise", "run in the foreground; a deployment runs it as a service")],
        codes=("0  ended by SIGTERM or SIGINT", "2  usage or configuration"),
    )
)
@click.option("--interval", type=Seconds(), default=2.0, show_default=True, help="Seconds between probes.")
@click.option(
    "--hang-timeout", type=Seconds(), default=15.0, show_default=True,
    help="Kill a Coordinator that has not answered for this many seconds; Ray restarts it.",
)  # fmt: skip
@click.option(
    "--init-stall-timeout", type=Seconds(), default=600.0, show_default=True,
    help="Kill a Coordinator whose initialization has made no progress for this many seconds.",
)  # fmt: skip
@click.option(
    "--bootstrap-timeout", type=Seconds(), default=120.0, show_default=True,
    help="Time limit of each bootstrap that this service runs.",
)  # fmt: skip
def supervise(*, interval: float, hang_timeout: float, init_stall_timeout: float, bootstrap_timeout: float) -> int:
    """Watch the Coordinator and repair faults that Ray does not detect; a service for the head."""
    from seedcore.core import logs
    from seedcore.deployment.supervision_policy import Policy
    from seedcore.deployment.supervisor import Supervisor

    logs.configure()
    policy = Policy(
        interval_s=interval, hang_timeout_s=hang_timeout, init_stall_timeout_s=init_stall_timeout,
        bootstrap_timeout_s=bootstrap_timeout,
    )  # fmt: skip
    supervisor = Supervisor(Settings.from_env(), policy=policy)
    code = supervisor.run()
    if supervisor.successor:
        # The same process, so that its service does not notice; the command reads the settings anew.
        os.execv(supervisor.successor, [supervisor.successor, *sys.argv[1:]])  # noqa: S606 - no shell
    return code


@click.command(
    epilog=manual(
        examples=[
            ("seedcore rebalance --dry-run", "print what would move, and where"),
            ("seedcore rebalance", "run it after a node has come back or a worker has joined"),
        ],
        codes=(
            "0  every replica is on the node that a new start would choose",
            "1  a replica could not be moved; later replicas were left alone",
            "2  usage or configuration",
            "4  the Coordinator does not answer: absent, initializing, unreachable, unauthorized",
        ),
    )
)
@json_option
@click.option("--timeout", type=Seconds(), default=600.0, show_default=True, help="Time limit for all moves.")
@click.option("--dry-run", is_flag=True, help="Move nothing; print what would move.")
def rebalance(*, as_json: bool, timeout: float, dry_run: bool) -> int:
    """Move organs off the head and spread them evenly, as a new start would place them.

    One process moves at a time: a new one starts on the other node, and when it is ready, the old one ends after its
    tasks (drain_timeout_s). Without room for both, the old one ends first.
    """
    from seedcore.deployment.rebalance import describe
    from seedcore.deployment.rebalance import rebalance as spread

    done = spread(Settings.from_env(), timeout_s=timeout, dry_run=dry_run, on_progress=lambda line: say(plain(line)))
    if as_json:
        out_json(done.to_dict())
    elif dry_run:
        for move in done.plan:
            out(plain(f"would move {describe(move)}"))
    else:
        for move in done.moved:
            out(plain(f"moved {describe(move)} ({move['seconds']:.1f} s)"))
    if done.error:
        say(f"moved {len(done.moved)} of {len(done.plan)}: {plain(done.error)}")
        return FAILED
    if not done.plan:
        say("nothing to move: every replica is on the node that a new start would choose")
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore shutdown", "stop until the next bootstrap, also for the supervisor"),
            ("seedcore shutdown --timeout 120", "allow agents more time to stop"),
        ],
        codes=(
            "0  stopped, or nothing was running",
            "1  a bootstrap is running and did not end in time",
            "2  usage or configuration",
            "4  unknown: unreachable, unauthorized",
        ),
    )
)
@json_option
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Time limit for the organs to stop.")
def shutdown(*, as_json: bool, timeout: float) -> int:
    """Stop the Coordinator and its organs; Ray keeps running."""
    from seedcore.deployment.bootstrap import shutdown as stop

    stopped = stop(Settings.from_env(), timeout_s=timeout)
    if as_json:
        out_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "nothing was running")
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore quiesce", "before you restart Ray on the head by hand"),
            ("seedcore quiesce --timeout 120", "allow tasks in flight more time"),
        ],
        codes=(
            "0  every task in flight is answered",
            "1  some are still in flight after the time limit",
            "2  usage or configuration",
            "4  the Coordinator does not answer: absent, initializing, unreachable, unauthorized",
        ),
    )
)
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Time limit for tasks in flight.")
def quiesce(*, timeout: float) -> int:
    """Accept no more tasks for a moment, and answer those in flight, before Ray stops on the head.

    Tasks are accepted again 10 seconds after the time limit, if Ray has not stopped.
    """
    from seedcore.deployment.quiesce import quiesce as hold

    if hold(Settings.from_env(), timeout_s=timeout):
        say("no task is in flight")
        return OK
    say(f"tasks are still in flight after {timeout:g} s")
    return FAILED
