"""Commands that start, watch over and stop the Coordinator."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs, and Ray only where it must join the cluster

from __future__ import annotations

import click

from seedcore.cli.base import FAILED, OK, STATUS_CODES, config_option, json_option, load, manual
from seedcore.cli.params import Seconds
from seedcore.cli.progress import Progress
from seedcore.cli.render import out, out_json, plain, printable, report_block, say
from seedcore.core.settings import Settings


@click.command(
    epilog=manual(
        examples=[
            ("seedcore bootstrap", "what $SEEDCORE_CONFIG names"),
            ("seedcore bootstrap --config organism.yaml --wait-timeout 300", "a slow one"),
            ("seedcore bootstrap --dry-run", "what would be done"),
        ],
        codes=STATUS_CODES,
    )
)
@config_option
@json_option
@click.option("--wait-timeout", type=Seconds(), default=60.0, show_default=True, help="Until it has to be healthy.")
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=2,
    show_default=True,
    help="New attempts after a failed one.",
)
@click.option("--replace", is_flag=True, help="Replace a running Coordinator even if nothing has changed.")
@click.option("--dry-run", is_flag=True, help="Change nothing, say what would be done.")
@click.option("--keep-desired", is_flag=True, hidden=True, help="For the supervisor, which repeats what was wanted.")
def bootstrap(
    *,
    config: str | None,
    as_json: bool,
    wait_timeout: float,
    retries: int,
    replace: bool,
    dry_run: bool,
    keep_desired: bool,
) -> int:
    """Make sure that the Coordinator runs, with this release and this configuration.

    One that is right already is left alone. The organism has come up when this ends with exit code 0. Meanwhile the
    stage is shown: as one line that changes on a terminal, as a line for each change anywhere else.
    """
    from seedcore.deployment.bootstrap import bootstrap as ensure
    from seedcore.deployment.desired_state import read_desired

    settings = Settings.from_env()
    wanted = read_desired(settings) if keep_desired else None
    # The file may have been edited since, or be half written now.
    spec = wanted.spec if wanted is not None and wanted.spec is not None else load(settings, config)

    with Progress(limit_s=wait_timeout) as progress:
        outcome = ensure(
            settings, spec, wait_timeout_s=wait_timeout, retries=retries, replace=replace, dry_run=dry_run,
            keep_desired=keep_desired, on_progress=progress,
        )  # fmt: skip
    if as_json:
        out_json(outcome.to_dict())
    else:
        would = "would " if dry_run else ""
        say(f"action: {would}{outcome.action} (attempts {outcome.attempts}, {outcome.elapsed_s:.1f} s)")
        out(report_block(outcome.report))
        if outcome.cause:
            # Ray puts an empty line after each line; the document of --json holds it as it is.
            say("\n".join(printable(line) for line in outcome.cause.splitlines() if line.strip()))
    if dry_run or outcome.report.healthy:
        return OK
    # Last, because a log is read from its end.
    say(f"{outcome.report.reason}: {plain(outcome.report.message)}")
    return outcome.report.exit_code


@click.command(
    epilog=manual(
        examples=[("seedcore supervise", "in the foreground; a deployment runs it as a service")],
        codes=("0  ended by SIGTERM or SIGINT", "2  usage or configuration"),
    )
)
@click.option("--interval", type=Seconds(), default=2.0, show_default=True, help="Between two probes.")
@click.option(
    "--hang-timeout", type=Seconds(), default=15.0, show_default=True,
    help="A Coordinator that has not answered for so long is killed; Ray starts it again.",
)  # fmt: skip
@click.option(
    "--init-stall-timeout", type=Seconds(), default=600.0, show_default=True,
    help="The same for one that initializes and whose progress stands still.",
)  # fmt: skip
@click.option(
    "--bootstrap-timeout", type=Seconds(), default=120.0, show_default=True,
    help="For each bootstrap that this service runs.",
)  # fmt: skip
def supervise(*, interval: float, hang_timeout: float, init_stall_timeout: float, bootstrap_timeout: float) -> int:
    """Watch the Coordinator and mend what Ray does not see; a service for the head."""
    from seedcore.core import logs
    from seedcore.deployment.supervision_policy import Policy
    from seedcore.deployment.supervisor import Supervisor

    logs.configure()
    policy = Policy(
        interval_s=interval, hang_timeout_s=hang_timeout, init_stall_timeout_s=init_stall_timeout,
        bootstrap_timeout_s=bootstrap_timeout,
    )  # fmt: skip
    return Supervisor(Settings.from_env(), policy=policy).run()


@click.command(
    epilog=manual(
        examples=[
            ("seedcore rebalance --dry-run", "what would move, and where"),
            ("seedcore rebalance", "after a node has come back, or a worker has joined"),
        ],
        codes=(
            "0  every replica is where a start would put it now",
            "1  a replica could not be moved; the ones after it were left alone",
            "2  usage or configuration",
            "4  there is nobody to ask: absent, initializing, unreachable, unauthorized",
        ),
    )
)
@json_option
@click.option("--timeout", type=Seconds(), default=600.0, show_default=True, help="Seconds for all moves.")
@click.option("--dry-run", is_flag=True, help="Move nothing, say what would move.")
def rebalance(*, as_json: bool, timeout: float, dry_run: bool) -> int:
    """Move organs off the head and spread them evenly, as a start would place them now.

    One process moves at a time: its tasks end first (drain_timeout_s), and the next one moves when it is ready on its
    new node. Tasks for an organ of one process are refused meanwhile, and clients try them again.
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
        say("nothing to move: every replica is where a start would put it now")
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore shutdown", "until the next bootstrap; the supervisor leaves it alone"),
            ("seedcore shutdown --timeout 120", "for agents that take their time to stop"),
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
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Seconds for the organs to stop.")
def shutdown(*, as_json: bool, timeout: float) -> int:
    """Stop the Coordinator and its organs; Ray goes on running."""
    from seedcore.deployment.bootstrap import shutdown as stop

    stopped = stop(Settings.from_env(), timeout_s=timeout)
    if as_json:
        out_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "nothing was running")
    return OK
