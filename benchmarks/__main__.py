"""Start a Ray of its own, measure in a driver, and stop it: ``python -m benchmarks``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.support.ray_head import RayHead

ROOT = Path(__file__).parents[1]


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--calls", type=click.IntRange(10, 100_000), default=500, show_default=True, help="Calls in a round.")
def main(*, rounds: int, calls: int) -> None:
    """Print what SeedCore adds to raw Ray, as ratios measured in one run."""
    # The agents of the benchmark are found by every process of the cluster.
    os.environ["PYTHONPATH"] = str(ROOT)
    head = RayHead()
    try:
        head.start()
        # A driver of its own: Ray reads where its token is when it is imported, and that is known only now.
        command = [sys.executable, "-m", "benchmarks.measure", str(rounds), str(calls)]
        code = subprocess.run(command, env=head.env(), cwd=ROOT, check=False).returncode  # noqa: S603 - ours
    finally:
        head.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
