"""Define the top-level command, its options and its subcommands."""

from __future__ import annotations

import os

import click

from seedcore.cli.base import STATUS_CODES, Cli, manual
from seedcore.cli.bootstrap import bootstrap, quiesce, rebalance, shutdown, supervise
from seedcore.cli.completion import completion
from seedcore.cli.config import config
from seedcore.cli.dev import dev, new
from seedcore.cli.durable import task, tasks
from seedcore.cli.inbox import inbox
from seedcore.cli.network import network
from seedcore.cli.operate import drain, pause, replace, resume, undrain
from seedcore.cli.releases import releases
from seedcore.cli.render import out
from seedcore.cli.schedules import schedule, schedules
from seedcore.cli.status import ping, status, top
from seedcore.cli.submit import submit
from seedcore.cli.token import token


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's protocol
    if value and not ctx.resilient_parsing:
        from seedcore import __version__  # noqa: PLC0415 - only where it is asked for
        from seedcore.core.release import agents_id, is_deployed, release_id  # noqa: PLC0415

        of_agents = f", agents {agents_id()}" if agents_id() else ""
        out(f"seedcore {__version__}" + (f" (release {release_id()}{of_agents})" if is_deployed() else ""))
        ctx.exit()


@click.group(
    cls=Cli,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=manual(
        examples=[
            ("seedcore bootstrap", "start or update the organism"),
            ("seedcore status --watch", "show the status and refresh it"),
            ("""seedcore submit echo --params '{"text": "hi"}'""", "submit a task"),
            ("seedcore COMMAND --help", "help of a command"),
        ],
        codes=STATUS_CODES,
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli() -> None:
    """Start, watch and use a SeedCore organism on a Ray cluster.

    The environment tells where the cluster is: RAY_ADDRESS, RAY_NAMESPACE, SEEDCORE_DASHBOARD_URL and others. A
    deployment writes these variables into etc/seedcore.env.

    Results go to standard output, messages to standard error. Colours appear only on terminals; NO_COLOR turns them
    off.
    """
    if os.environ.get("SEEDCORE_LOG_LEVEL"):
        from seedcore.core import logs  # noqa: PLC0415 - only where it is asked for

        logs.configure()


for command in (
    new, dev, bootstrap, status, top, ping, network, submit, tasks, task, schedules, schedule, token, config, releases,
    supervise, pause, resume, replace, rebalance, drain, undrain, quiesce, shutdown, completion, inbox,
):  # fmt: skip
    cli.add_command(command)
