"""The command that lists the releases on this host."""
# ruff: noqa: PLC0415 - the command imports what it needs when it runs

from __future__ import annotations

import dataclasses
import sys

import click

from seedcore.cli.base import FAILED, OK, json_option, manual
from seedcore.cli.render import aligned, out, out_json, say


@click.command(
    epilog=manual(
        examples=[
            ("seedcore releases", "on a host of the deployment"),
            ("seedcore releases --json", "with the ids of library, agents and Ray"),
        ],
        codes=("0  done", "1  this is not a release of a deployment", "2  usage or configuration"),
    )
)
@json_option
def releases(*, as_json: bool) -> int:
    """List the releases on this host, the newest first.

    It prints when each was installed and when the gate passed with it (green), which is active, and what of the others
    differs from that one: agents, library, ray or organism. On the controller, playbooks/rollback.yml goes back to the
    one that was green before, and with -e to=ID to another one.
    """
    from pathlib import Path

    from seedcore.core.release import is_deployed
    from seedcore.deployment.releases import installed

    own = Path(sys.prefix).resolve()
    if not is_deployed(own):
        say("this is not a release of a deployment, so there are no others: run bin/seedcore of the deployment")
        return FAILED
    found = installed(own.parents[1])
    if as_json:
        out_json([dataclasses.asdict(row) for row in found])
        return OK
    rows = [
        (row.id, row.installed, row.green or "-", "active" if row.active else ", ".join(row.differs) or "nothing")
        for row in found
    ]
    out("\n".join(aligned(["ID", "INSTALLED", "GREEN", "DIFFERS"], rows)))
    return OK
