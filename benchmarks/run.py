"""Run the driver of ``python -m benchmarks``: join the Ray of the environment, measure, and print the table."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import ray

from benchmarks import calls, endurance, reloads, report, starts
from benchmarks.timing import Row
from seedcore.core.settings import Settings

MEASUREMENTS = {
    "calls": calls.measure,
    "starts": starts.measure,
    "endurance": endurance.measure,
    "reloads": reloads.measure,
}


def run(*, rounds: int, quick: bool, only: str, output: Path) -> None:
    """Run every measurement whose name contains ``only``."""
    settings = Settings.from_env()
    ray.init(namespace=settings.namespace, log_to_driver=False, logging_level=logging.ERROR)
    if quick:
        rounds = min(rounds, 3)
    rows: list[Row] = []
    for name, measure in MEASUREMENTS.items():
        if only in name:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            rows += measure(rounds=rounds, quick=quick)
    print(report.table(rows))
    report.write(rows, output, rounds=rounds, cpus=os.cpu_count() or 1)
    print(f"written: {output / 'results.json'}, {output / 'ratios.svg'}", file=sys.stderr)


if __name__ == "__main__":
    run(rounds=int(sys.argv[1]), quick=sys.argv[2] == "1", only=sys.argv[3], output=Path(sys.argv[4]))
