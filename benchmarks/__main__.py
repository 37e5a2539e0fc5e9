"""Start a Ray head, run the benchmarks in a driver, and stop it: ``python -m benchmarks``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.support.ray_head import RayHead

ROOT = Path(__file__).parents[1]


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=7, show_default=True, help="Rounds; medians are shown.")
@click.option("--only", metavar="WORD", default="", help="Run only the measurements whose name contains this word.")
@click.option("--quick", is_flag=True, help="Use fewer rounds, actors and tasks: for a trial, not for publication.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "benchmarks",
    show_default="build/benchmarks",
    help="Directory for results.json and ratios.svg.",
)
def main(*, rounds: int, only: str, quick: bool, output: Path) -> None:
    """Print the overhead of SeedCore over Ray, as ratios measured in one run on one Ray.

    A missed goal is a result, not an error.
    """
    # Every process of the cluster must be able to import the benchmark's agents.
    os.environ["PYTHONPATH"] = str(ROOT)
    output.mkdir(parents=True, exist_ok=True)
    head = RayHead(num_cpus=4)
    try:
        head.start(timeout_s=300)
        # A separate driver process: Ray reads its token's path at import, and the path exists only now.
        command = [sys.executable, "-m", "benchmarks.run", str(rounds), str(int(quick)), only, str(output.absolute())]
        code = subprocess.run(command, env=head.env(), cwd=ROOT, check=False).returncode  # noqa: S603 - ours
    finally:
        head.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
