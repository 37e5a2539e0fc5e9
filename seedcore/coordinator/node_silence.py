"""Which nodes have been silent, and for how long: pure decisions, with the time passed in, and the question itself.

A sign of life of a node is a report of any process on it, or an answer of its agent. The clock behind the figures
stands still while this process itself does: a Coordinator that was frozen finds nobody silent when it wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Iterable

# What one step may add to a silence: more time than this has passed only if nobody was asked meanwhile.
MAX_STEP_S = 3.0
# From then on the agents of all nodes are asked.
SUSPECT_AFTER_S = 2.5
# From then on its agent has been asked and has not answered at once. One that is slow each time is only slow: so soon
# after the last time, nobody is taken to have been cut off again.
AWAY_AFTER_S, AWAY_AGAIN_AFTER_S = 4.0, 30.0
# A connection that was cut off sends again after pauses that double: at most as long after the outage as it has lasted,
# and a first pause, which is longer where packets were lost before.
FIRST_PAUSE_S = 3.0
# By then Ray has given up each node that is frozen or cut off: of one that is still alive, only the agent is out of
# reach, behind a firewall for one. A process that hangs there is replaced where it is.
RAY_DECIDES_AFTER_S = 90.0


class NodeSilence:
    """Remembers when each node was last heard of."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._stepped_at: float | None = None
        self._heard: dict[str, float] = {}
        self._reconnects_until: dict[str, float] = {}
        self._back_at: dict[str, float] = {}
        self._unanswered: frozenset[str] = frozenset()
        self._answered: frozenset[str] = frozenset()

    def step(self, now: float, *, used: Collection[str], reported: Iterable[str]) -> None:
        """Let time pass.

        Args:
            now: Seconds of a monotonic clock.
            used: Nodes with a process of an organ on them; others that answer are forgotten.
            reported: Those of them from which a process has reported since the last step.
        """
        if self._stepped_at is not None:
            self._clock += min(max(0.0, now - self._stepped_at), MAX_STEP_S)
        self._stepped_at = now
        # A silent one that everything has moved away from is avoided until it is heard, or Ray gives it up.
        self._heard = {node: self._heard.get(node, self._clock) for node in {*used, *self._unanswered}}
        self._hear(reported)
        self._reconnects_until = {node: at for node, at in self._reconnects_until.items() if at > self._clock}
        self._back_at = {node: at for node, at in self._back_at.items() if node in self._heard}

    def asked(self, *, answered: Iterable[str], unanswered: Iterable[str]) -> None:
        """Take in which agents have answered the last question, and which have not; the Coordinator's own is neither.

        Where nobody could be asked, both are empty.
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
        """Seconds since the last sign of life; 0 for a node that nothing is known of."""
        return self._clock - self._heard.get(node, self._clock)

    @property
    def has_suspects(self) -> bool:
        """Whether the agents are to be asked."""
        return any(self.silent_s(node) >= SUSPECT_AFTER_S for node in self._heard)

    @property
    def silent(self) -> frozenset[str]:
        """Nodes of which neither a process nor the agent answers now, as long as Ray may not have noticed yet."""
        return frozenset(
            node for node in self._unanswered if SUSPECT_AFTER_S <= self.silent_s(node) < RAY_DECIDES_AFTER_S
        )

    @property
    def unreachable(self) -> frozenset[str]:
        """Nodes that are silent, or were until now: not all connections to their processes may be back."""
        return self.silent | self._reconnects_until.keys()

    def is_lost(self, node: str | None, limit_s: float) -> bool:
        """Say whether a node is to be given up after ``limit_s`` seconds of silence.

        Not where several nodes were asked and none answers: then it is rather this host that is cut off, and what runs
        on the others is well. Ray decides on them.
        """
        if node is None or node not in self._unanswered or self.silent_s(node) < limit_s:
            return False
        return bool(self._answered) or len(self._unanswered) == 1


async def agent_answers(host: str, port: int, *, timeout_s: float) -> bool:
    """Ask the agent of a node how it is; returns whether it has answered, with whatever status.

    A connection that is refused or reset is no answer. Ray calls a node alive only after its agent has listened, so a
    refusal comes from a host that was booted again, from one whose processes stand still while its kernel does not, or
    from a firewall in between. Where only the agent has ended, its raylet ends itself, and Ray gives the node up.
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
