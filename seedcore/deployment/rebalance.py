"""Move organs to the nodes that a new start would choose, after a node has come back or workers have joined.

The Coordinator plans and moves. This module executes its plan one replica at a time and stops at the first failure, so
that no organ lacks more than one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seedcore.core.settings import Settings
from seedcore.deployment.driver import joined

PLAN_TIMEOUT_S = 15.0


@dataclass(slots=True, kw_only=True)
class Rebalance:
    """The result of a rebalance, or its plan.

    Attributes:
        plan: One entry per move: ``{"organ_id", "replica", "from", "to"}``, with names of nodes.
        moved: The executed moves; ``to`` is the actual node of the replica, ``seconds`` the duration.
        error: Why the rest of the plan was not executed; empty if there is no rest.
    """

    plan: list[dict[str, Any]]
    moved: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"plan": self.plan, "moved": self.moved, "error": self.error}


def rebalance(
    settings: Settings,
    *,
    timeout_s: float = 600.0,
    dry_run: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Rebalance:
    """Move replicas, one at a time and each after its tasks, to the nodes that a new start would choose.

    Args:
        settings: Where the cluster is.
        timeout_s: Time limit for everything, in seconds; a move in progress then goes on by itself.
        dry_run: Only plan.
        on_progress: Called with one line before each move.

    Raises:
        ClusterError: The Coordinator cannot be reached, or there is none.
        ConfigError: The token cannot be read.
    """
    deadline = time.monotonic() + timeout_s

    def remaining() -> float:
        return max(0.0, deadline - time.monotonic())

    with joined(settings, remaining) as driver:
        answer = driver.ask("moves", timeout_s=min(PLAN_TIMEOUT_S, remaining()))
        if answer["success"] is not True:
            return Rebalance(plan=[], error=str(answer["error"]))
        done = Rebalance(plan=answer["moves"])
        for move in [] if dry_run else done.plan:
            on_progress(f"moving {describe(move)}")
            began = time.monotonic()
            answer = driver.ask("move", move["organ_id"], move["replica"], remaining(), timeout_s=remaining())
            if answer["success"] is not True:
                done.error = str(answer["error"])
                break
            done.moved.append({**move, "to": answer["to"], "seconds": round(time.monotonic() - began, 1)})
        return done


def describe(move: dict[str, Any]) -> str:
    """Return a move as text: ``text[0] from head to worker-1``."""
    return f"{move['organ_id']}[{move['replica']}] from {move['from']} to {move['to']}"
