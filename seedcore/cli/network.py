"""The command that checks the network between the nodes."""
# ruff: noqa: PLC0415 - Ray is loaded where a cluster is joined

from __future__ import annotations

import click

from seedcore.cli.base import FAILED, OK, json_option, manual
from seedcore.cli.params import Seconds
from seedcore.cli.render import out, out_json, plain
from seedcore.core.settings import Settings

DEFAULT_TIMEOUT_S = 20.0


@click.command(
    epilog=manual(
        examples=[
            ("seedcore network", "run it after a change of a firewall"),
            ("seedcore network --timeout 60", "allow processes more time to start"),
        ],
        codes=(
            "0  every node receives the objects of its neighbours",
            "1  some do not; each line names the nodes, the port and the direction",
            "2  usage or configuration",
            "4  unknown: unreachable, unauthorized",
        ),
    )
)
@json_option
@click.option(
    "--timeout", type=Seconds(), default=DEFAULT_TIMEOUT_S, show_default=True,
    help="Time limit for the processes on the nodes to start, and again for the objects to arrive.",
)  # fmt: skip
def network(*, as_json: bool, timeout: float) -> int:
    """Send an object of 1 MB from every node to the next one and back.

    The command joins Ray and starts a temporary process on each node. It detects a firewall between two workers before
    the first large object fails to arrive.
    """
    from seedcore.deployment.network import examine

    findings = examine(Settings.from_env(), timeout_s=timeout)
    if as_json:
        out_json(findings.to_dict())
    else:
        for line in findings.faults:
            out(plain(line))
        if not findings.faults:
            out(f"{findings.transfers} objects of 1 MB between {len(findings.nodes)} nodes in {findings.seconds:.1f} s")
    return FAILED if findings.faults else OK
