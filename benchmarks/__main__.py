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
@click.option("--rounds", type=click.IntRange(1, 100), default=7, show_default=True, help="Rounds; medians are shown.")
@click.option("--only", metavar="WORD", default="", help="Only the measurements that have this word in their name.")
@click.option("--quick", is_flag=True, help="Fewer rounds, actors and tasks: to see that it works, not to publish.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "benchmarks",
    show_default="build/benchmarks",
    help="Where results.json and ratios.svg go.",
)
def main(*, rounds: int, only: str, quick: bool, output: Path) -> None:
    """Print what SeedCore adds to Ray, as ratios measured in one run on one Ray.

    A goal that is missed is a result and no error.
    """
    # The agents of the benchmark are found by every process of the cluster.
    os.environ["PYTHONPATH"] = str(ROOT)
    output.mkdir(parents=True, exist_ok=True)
    head = RayHead(num_cpus=4)
    try:
        head.start(timeout_s=300)
        # A driver of its own: Ray reads where its token is when it is imported, and that is known only now.
        command = [sys.executable, "-m", "benchmarks.run", str(rounds), str(int(quick)), only, str(output.absolute())]
        code = subprocess.run(command, env=head.env(), cwd=ROOT, check=False).returncode  # noqa: S603 - ours
    finally:
        head.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
