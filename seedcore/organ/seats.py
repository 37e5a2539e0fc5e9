"""Choose the agent for the next task of an organ's process, from their loads and their stuck slots.

The cost of each step does not depend on the number of agents.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from seedcore.organ.agent import AgentRunner


class Seat:
    """One agent, or several that share a thread, and their running tasks."""

    __slots__ = ("agents", "load", "open", "stuck")

    def __init__(self) -> None:
        self.agents: deque[AgentRunner] = deque()
        self.load = 0
        self.stuck = 0
        self.open = True


class Seats:
    """The agents that can take a task: the one with the fewest tasks first, among equals the one that is idle longest.

    Args:
        capacity: Tasks that one agent executes at a time.

    Attributes:
        limit: Limit of tasks in execution, whatever the number of agents; None for no limit.
    """

    def __init__(self, capacity: int) -> None:
        self.limit: int | None = None
        self._capacity = capacity
        # Open seats by load; a full seat is not in any. The list grows with the highest load.
        self._by_load: list[OrderedDict[Seat, None]] = [OrderedDict()]
        self._lowest = 0
        self._of: dict[Hashable, Seat] = {}
        self._agents = 0
        self._running = 0
        self._stuck = 0
        self._stuck_agents = 0

    @property
    def count(self) -> int:
        """Return the number of tasks that can be executed at a time."""
        places = len(self._of) * self._capacity
        return places if self.limit is None else min(places, self.limit)

    @property
    def stuck_agents(self) -> int:
        """Return the number of agents whose slots, or all threads, are held by code that does not end."""
        blocked = self.limit is not None and self._stuck >= self.limit
        return self._agents if blocked else self._stuck_agents

    @property
    def able(self) -> int:
        """Return the number of agents that can execute a task, now or later."""
        return self._agents - self.stuck_agents

    def add(self, agent: AgentRunner) -> None:
        """Add an agent."""
        self.remove(agent)
        seat = self._of.get(agent.place)
        if seat is None:
            seat = self._of[agent.place] = Seat()
            self._put(seat)
        seat.agents.append(agent)
        self._agents += 1
        self._stuck_agents += self._is_stuck(seat)

    def remove(self, agent: AgentRunner) -> None:
        """Give no more tasks to an agent; its running tasks go on."""
        seat = self._of.get(agent.place)
        if seat is None or agent not in seat.agents:
            return
        self._agents -= 1
        self._stuck_agents -= self._is_stuck(seat)
        seat.agents.remove(agent)
        if not seat.agents:
            del self._of[agent.place]
            seat.open = False
            self._pull(seat)

    def take(self) -> tuple[Seat, AgentRunner] | None:
        """Choose an agent for one more task."""
        if self.limit is not None and self._running >= self.limit:
            return None
        while self._lowest < len(self._by_load):
            seats = self._by_load[self._lowest]
            if seats:
                seat, _ = seats.popitem(last=False)
                agent = seat.agents[0]
                seat.agents.rotate(-1)
                self._fill(seat, agent)
                return seat, agent
            self._lowest += 1
        return None

    def reserve(self, agent: AgentRunner) -> Seat | None:
        """Reserve an idle agent; return None if it is not idle."""
        seat = self._of.get(agent.place)
        if seat is None or seat.load or agent not in seat.agents:
            return None
        self._pull(seat)
        self._fill(seat, agent)
        return seat

    def give_back(self, seat: Seat, agent: AgentRunner) -> None:
        """Record that a call after :meth:`take` or :meth:`reserve` has really ended."""
        self._running -= 1
        agent.leave()
        if seat.open:  # else its agent was removed, or restarted with a new seat
            self._pull(seat)
        seat.load -= 1
        if seat.open:
            self._put(seat)

    def mark_stuck(self, seat: Seat, change: int) -> None:
        """Record that code runs past its deadline, or has ended after that."""
        before = self._is_stuck(seat)
        self._stuck += change
        seat.stuck += change
        if seat.open:
            self._stuck_agents += (self._is_stuck(seat) - before) * len(seat.agents)

    def _is_stuck(self, seat: Seat) -> bool:
        return seat.stuck >= self._capacity

    def _fill(self, seat: Seat, agent: AgentRunner) -> None:
        self._running += 1
        seat.load += 1
        agent.load += 1
        self._put(seat)

    def _put(self, seat: Seat) -> None:
        if seat.load >= self._capacity:
            return
        if seat.load == len(self._by_load):
            self._by_load.append(OrderedDict())
        self._by_load[seat.load][seat] = None
        self._lowest = min(self._lowest, seat.load)

    def _pull(self, seat: Seat) -> None:
        if seat.load < self._capacity:
            del self._by_load[seat.load][seat]
