"""Organisms for the benchmarks, each in a separate namespace."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedcore.config.organism_file import load_config
from seedcore.core.settings import Settings
from seedcore.deployment.bootstrap import Outcome, bootstrap, shutdown
from tests.support.ports import free_ports

ECHO = {
    "id": "echo",
    "type": "Benchmark",
    "agent": "benchmarks.agents:echo",
    "task_types": ["echo"],
    "max_concurrency": 1000,
    "queue_limit": 10_000,
}


def scope(namespace: str) -> Settings:
    """Return settings with this namespace, a free port and a separate state directory."""
    settings = Settings.from_env()
    directory = settings.state_dir.parent / namespace
    return replace(settings, namespace=namespace, http_port=free_ports(1)[0], state_dir=directory)


def config_file(directory: Path, *organs: dict[str, Any]) -> Path:
    """Write an organism.yaml and return its path."""
    path = directory / "organism.yaml"
    path.write_text(json.dumps({"seedcore": {"organism": {"organ_types": organs}}}))
    return path


@contextmanager
def running(namespace: str, *organs: dict[str, Any]) -> Iterator[tuple[Settings, Outcome]]:
    """Run a healthy organism for the duration of the block.

    Raises:
        RuntimeError: The organism did not become healthy.
    """
    settings = scope(namespace)
    with tempfile.TemporaryDirectory() as directory:
        spec = load_config(config_file(Path(directory), *organs))
        try:
            outcome = bootstrap(settings, spec, wait_timeout_s=180)
            if not outcome.report.healthy:
                raise RuntimeError(f"the organism {namespace} did not come up: {outcome.report.message}")
            yield settings, outcome
        finally:
            shutdown(settings)


def pids_of(outcome: Outcome) -> list[int]:
    """Return the process ids of an organism's organs."""
    organs = (outcome.report.coordinator or {}).get("organs", ())
    return [replica["pid"] for organ in organs for replica in organ["replicas"]]


def memory_mb(*pids: int) -> float:
    """Return the proportional set size (PSS) of some processes in MB: shared pages count in parts."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024
