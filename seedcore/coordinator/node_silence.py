"""Track silent nodes: pure decisions, with the time passed in, and the request to a node's agent.

A sign of life of a node is a report of any process on it, or an answer of its agent. The clock stops while this process
is stopped, so a Coordinator that was frozen finds no node silent when it wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Iterable

# Upper limit of the silence that one step adds: if more time has passed, no node was asked meanwhile.
MAX_STEP_S = 3.0
# After this silence, ask the agents of all nodes.
SUSPECT_AFTER_S = 2.5
# After this silence, the agent has been asked and has not answered at once. An agent that is slow each time is only
# slow: so soon after the last time, a node does not count as cut off again.
AWAY_AFTER_S, AWAY_AGAIN_AFTER_S = 4.0, 30.0
# TCP retries on a connection that was cut off with doubling pauses: at most as long after the outage as the outage
# lasted, plus a first pause, which is longer after earlier packet loss.
FIRST_PAUSE_S = 3.0
# By then Ray has declared each frozen or cut-off node dead. If a node is still alive, only its agent is out of reach,
# behind a firewall for example. A process that hangs there is replaced on the same node.
RAY_DECIDES_AFTER_S = 90.0


class NodeSilence:
    """The last sign of life of each node."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._stepped_at: float | None = None
        self._heard: dict[str, float] = {}
        self._reconnects_until: dict[str, float] = {}
        self._back_at: dict[str, float] = {}
        self._unanswered: frozenset[str] = frozenset()
        self._answered: frozenset[str] = frozenset()

    def step(self, now: float, *, used: Collection[str], reported: Iterable[str]) -> None:
        """Advance the time.

        Args:
            now: Seconds of a monotonic clock.
            used: Nodes with an organ process; other nodes that answer are dropped.
            reported: Those of them with a report of a process since the last step.
        """
        if self._stepped_at is not None:
            self._clock += min(max(0.0, now - self._stepped_at), MAX_STEP_S)
        self._stepped_at = now
        # Keep a silent node without processes, to avoid it until it answers or Ray declares it dead.
        self._heard = {node: self._heard.get(node, self._clock) for node in {*used, *self._unanswered}}
        self._hear(reported)
        self._reconnects_until = {node: at for node, at in self._reconnects_until.items() if at > self._clock}
        self._back_at = {node: at for node, at in self._back_at.items() if node in self._heard}

    def asked(self, *, answered: Iterable[str], unanswered: Iterable[str]) -> None:
        """Record which agents have answered the last request, and which have not, except the Coordinator's own.

        Both are empty if no agent could be asked.
        """
        self._answered, self._unanswered = frozenset(answered), frozenset(unanswered)
        self._hear(self._answered & self._heard.keys())

    def _hear(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            away_s = self.silent_s(node)
            was_back_s = self._clock - self._back_at.get(node, -math.inf)
            if away_s >= AWAY_AFTER_S and was_back_s >= AWAY_AGAIN_AFTER_S:
                self._back_at[node] = self._clock
                self._reconnects_until[node] = self._clock + away_s + FIRST_PAUSE_S
            self._heard[node] = self._clock

    def silent_s(self, node: str) -> float:
        """Return the seconds since the last sign of life; 0 for an unknown node."""
        return self._clock - self._heard.get(node, self._clock)

    @property
    def has_suspects(self) -> bool:
        """Return whether to ask the agents."""
        return any(self.silent_s(node) >= SUSPECT_AFTER_S for node in self._heard)

    @property
    def silent(self) -> frozenset[str]:
        """Return the nodes without an answer of a process or the agent, as long as Ray may not have detected it yet."""
        return frozenset(
            node for node in self._unanswered if SUSPECT_AFTER_S <= self.silent_s(node) < RAY_DECIDES_AFTER_S
        )

    @property
    def unreachable(self) -> frozenset[str]:
        """Return the nodes that are or were just silent, so that connections to their processes may still be broken."""
        return self.silent | self._reconnects_until.keys()

    def is_lost(self, node: str | None, limit_s: float) -> bool:
        """Return whether to give up a node after ``limit_s`` seconds of silence.

        The answer is no if several nodes were asked and none answered: then this host is probably cut off, and the
        processes on the others are healthy. Ray decides on them.
        """
        if node is None or node not in self._unanswered or self.silent_s(node) < limit_s:
            return False
        return bool(self._answered) or len(self._unanswered) == 1


async def agent_answers(host: str, port: int, *, timeout_s: float) -> bool:
    """Ask the agent of a node for its health; return whether it has answered, with any status.

    A refused or reset connection is not an answer. Ray reports a node alive only after its agent listens, so a refusal
    comes from a rebooted host, from a host whose processes stand still while its kernel runs, or from a firewall. If
    only the agent has ended, its raylet exits, and Ray declares the node dead.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET /api/healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return bool(await reader.read(1))
    except OSError:
        return False  # TimeoutError is one
    finally:
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
