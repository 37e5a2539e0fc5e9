"""Run the command line against a test cluster, in this process or in a new one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from seedcore.cli.app import cli
from tests.support.fake_cluster import FakeCluster

ROOT = Path(__file__).parents[2]


def run(cluster: FakeCluster, *arguments: str, text: str | None = None, **environ: str) -> Result:
    """Run a command in this process, without variables of any other deployment in the environment."""
    foreign = {key: None for key in os.environ if key.startswith(("RAY_", "SEEDCORE_"))}
    return CliRunner().invoke(cli, arguments, input=text, env={**foreign, **cluster.env(), **environ})


def command(cluster: FakeCluster, *arguments: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment for the same command in a new process."""
    return [sys.executable, "-m", "seedcore", *arguments], {**cluster.env(), "PYTHONPATH": str(ROOT), **environ}


def spawn(cluster: FakeCluster, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a new process."""
    argv, env = command(cluster, *arguments)
    return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, text=True, **options)
