"""Measure a deployment that changes nothing against gathering the facts of the same hosts.

Usage: ``python -m benchmarks.noop_deploy [--rounds N] -- ARGUMENTS OF ansible-playbook``, for deployed hosts.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
DEPLOY, FACTS = "deploy.yml", "benchmarks/facts.yml"
# Each measured run: a playbook and extra arguments. The gate's stability window is waiting time, so one run omits it.
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "facts": (FACTS, ()),
    "deploy": (DEPLOY, ()),
    "deploy, the gate looks once": (DEPLOY, ("-e", "seedcore_gate_stable_seconds=0")),
    "deploy, every step": (DEPLOY, ("-e", "seedcore_every_step=true")),
}


def run(playbook: str, arguments: tuple[str, ...]) -> tuple[float, str]:
    """Run a playbook; return its duration in seconds and its output."""
    begun = time.monotonic()
    command = [str(PLAYBOOK), *arguments, playbook]
    environ = {**os.environ, "ANSIBLE_DISPLAY_OK_HOSTS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise click.ClickException(f"{playbook} is red:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    # A setting of Ansible decides whether the lines of -vvv go to stdout or to stderr.
    return time.monotonic() - begun, done.stdout + done.stderr


def tasks_of(output: str) -> Counter[str]:
    """Return how many tasks (and loop items) each host ran, without the skipped ones."""
    return Counter(re.findall(r"^(?:ok|changed): \[([^ \]]+)", output, re.MULTILINE))


def round_trips_of(output: str) -> Counter[str]:
    """Return the number of round trips to each host, by address, from the output of a run with ``-vvv``."""
    return Counter(re.findall(r"^(?:\x1b\[[\d;]*m)?<([^>]+)> (?:SSH: )?EXEC ", output, re.MULTILINE))


@click.command()
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
@click.argument("arguments", nargs=-1)
def main(*, rounds: int, arguments: tuple[str, ...]) -> None:
    """Print the time of each interleaved run, the medians and ratios, and the tasks and round trips of each host."""
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, (playbook, more) in RUNS.items():
            seconds, output = run(playbook, (*arguments, *more))
            times[name].append(seconds)
            if changed := re.findall(r"changed=([1-9]\d*)", output):
                raise click.ClickException(f"{name}: had something to do, changed={', '.join(changed)}")
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    for name, median in medians.items():
        print(f"{name:28} {median:6.2f} s {median / medians['facts']:6.1f} x")
    verbose = run(DEPLOY, ("-vvv", *arguments))[1]
    counts = {"tasks": tasks_of(verbose), "round trips": round_trips_of(verbose)}
    for name, found in counts.items():
        print(f"{name}: {', '.join(f'{host} {count}' for host, count in sorted(found.items()))}")


if __name__ == "__main__":
    main()
