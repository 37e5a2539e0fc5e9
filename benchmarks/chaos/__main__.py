"""``make chaos``: see :mod:`benchmarks.chaos`."""

from __future__ import annotations

import os
import secrets
import signal
import statistics
import sys
from pathlib import Path

import click

from benchmarks.chaos import campaign
from benchmarks.chaos.campaign import Result
from benchmarks.chaos.faults import faults
from benchmarks.chaos.places import Containers, Localhost

SHOWN = 20
LOGGED = 80


def _history() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "seedcore/chaos.jsonl"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(0.5, 1440), default=60.0, show_default=True)
@click.option("--seed", type=int, help="Seed for the order and the targets of the faults; default: random.")
@click.option("--only", multiple=True, metavar="FAULT", help="Inject this fault only; may be repeated.")
@click.option("--containers", metavar="SCENARIO", help="The hosts of a molecule scenario; default: this machine.")
@click.option("--history", type=click.Path(path_type=Path), help="File that gets one line per campaign.")
def main(
    *, minutes: float, seed: int | None, only: tuple[str, ...], containers: str | None, history: Path | None
) -> None:
    """Inject faults into a deployment, one after the other, and check its status and answers against the facts."""
    # A campaign that is terminated must leave no deployment behind, like one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = secrets.randbelow(10**6) if seed is None else seed
    place: Containers | Localhost = Containers(containers) if containers else Localhost()
    known = {fault.name: fault for fault in faults(place)}
    if unknown := sorted(set(only) - set(known)):
        raise click.UsageError(f"unknown fault {', '.join(unknown)}; choose from: {', '.join(known)}")
    chosen = [fault for fault in known.values() if not only or fault.name in only]
    click.echo(f"chaos: seed {seed}, {minutes:g} minutes, {', '.join(fault.name for fault in chosen)}")
    try:
        place.open()
        result = campaign.run(place, chosen, seed=seed, minutes=minutes, ledger_path=place.ledger, say=click.echo)
    finally:
        place.close()
    campaign.remember(result, history or _history())
    _print(result)
    sys.exit(0 if result.verdict.clean and not result.cut_short and not result.late() else 1)


def _print(result: Result) -> None:
    verdict = result.verdict
    click.echo(
        f"\n{result.tasks} tasks, {result.statuses} statuses, {len(result.injections)} faults, seed {result.seed}"
    )
    click.echo("| figure | found | goal |\n|---|---|---|")
    click.echo(f"| false `healthy` by CLI or HTTP | {len(verdict.false_healthy)} | 0 |")
    click.echo(f"| tasks without exactly one true answer | {len(verdict.lost)} | 0 |")
    click.echo(f"| healthy process replaced | {len(verdict.killed)} | 0 |")
    for name, seconds, goal in result.recoveries():
        times = f"median {statistics.median(seconds):.1f} s of {len(seconds)}, longest {max(seconds):.1f} s"
        click.echo(f"| {name} | {times} | {f'{goal:g} s' if goal is not None else '-'} |")
    for title, lines in (
        ("false healthy", verdict.false_healthy),
        ("answers", verdict.lost),
        ("processes", verdict.killed),
        ("late", result.late()),
    ):
        for line in lines[:SHOWN]:
            click.echo(f"{title}: {line}")
        if len(lines) > SHOWN:
            click.echo(f"{title}: and {len(lines) - SHOWN} more")
    for line in result.log[-LOGGED:]:
        click.echo(f"log: {line}")
    if result.cut_short:
        click.echo(f"cut short: {result.cut_short}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.chaos")
