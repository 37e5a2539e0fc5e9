"""Limit concurrent starts: on each node as many processes start at a time as it has cores; the others wait.

A turn begins with the creation of an actor and ends when its process has answered, has died or was stopped, and at the
latest after its organ's ``start_timeout_s``. A process without room takes no turn, because it does not start yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.coordinator.placement import Node, Occupancy, Occupant
from seedcore.core.spec import OrganSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)

# Maximal age of the list of nodes for giving turns; also the interval for checking the waiters.
NODES_AGE_S = 1.0
# Largest number of nodes in a reason.
MAX_NAMED = 5
# Turns that end at about the same time are passed on together.
_TOGETHER_S = 0.05

Key = tuple[str, int, int]
"""Organ id, replica and generation."""


@dataclass(frozen=True, slots=True)
class Request:
    """A replica that is waiting to start a process."""

    spec: OrganSpec
    index: int
    generation: int = 0

    @property
    def key(self) -> Key:
        """Return the key of the replica."""
        return (self.spec.id, self.index, self.generation)


@dataclass(frozen=True, slots=True)
class Turn:
    """A replica whose process may start now.

    Attributes:
        request: The replica.
        node_id: The node for it; None if no present node can hold it, so that Ray must wait for one.
    """

    request: Request
    node_id: str | None


@dataclass(frozen=True, slots=True)
class _Waiter:
    request: Request
    granted: asyncio.Future[str | None]
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Held:
    node_id: str
    until: float


class Starts:
    """Track starting processes, and decide which one is next; pure, with the time passed in."""

    def __init__(self) -> None:
        self._held: dict[Key, _Held] = {}

    def give_back(self, key: Key) -> bool:
        """End the turn of a replica; return whether it had one."""
        return self._held.pop(key, None) is not None

    def has_turn(self, key: Key, now: float) -> bool:
        """Return whether a replica's process is being started."""
        held = self._held.get(key)
        return held is not None and held.until > now

    def admit(
        self, requests: Sequence[Request], nodes: Sequence[Node], occupants: Iterable[Occupant], now: float
    ) -> list[Turn]:
        """Give turns to waiting replicas: the first replica of every organ comes before the second of any."""
        self._held = {key: held for key, held in self._held.items() if held.until > now}
        occupancy = Occupancy(nodes, occupants)
        left = {node.node_id: node.cores for node in nodes}
        for held in self._held.values():
            left[held.node_id] = left.get(held.node_id, 0) - 1
        turns: list[Turn] = []
        for request in sorted(requests, key=lambda one: one.index):
            if nodes and all(count <= 0 for count in left.values()):
                break
            choice = occupancy.choose(request.spec)
            if choice is None or not choice.has_room:
                turns.append(Turn(request, choice.node.node_id if choice else None))
                continue
            node_id = choice.node.node_id
            # Count it even if it must wait: then the next one may prefer another node that has a free turn.
            occupancy.put(request.spec, node_id)
            if left[node_id] > 0:
                left[node_id] -= 1
                self._held[request.key] = _Held(node_id, now + request.spec.start_timeout_s)
                turns.append(Turn(request, node_id))
        return turns

    def reason(self, nodes: Iterable[Node]) -> str:
        """Return why replicas without a turn wait: ``waits for its turn: 3 processes are starting (2 on a, 1 on b)``.

        The reason names at most MAX_NAMED nodes.
        """
        starting = Counter(held.node_id for held in self._held.values())
        names = {node.node_id: node.name for node in nodes}
        where = [f"{count} on {names.get(node_id, node_id)}" for node_id, count in sorted(starting.items())]
        count = starting.total()
        processes = "1 process is" if count == 1 else f"{count} processes are"
        more = ", ..." if len(where) > MAX_NAMED else ""
        return f"waits for its turn: {processes} starting ({', '.join(where[:MAX_NAMED])}{more})"


class Placer:
    """Let replicas wait for their turn and choose the node of each.

    Args:
        runtime: Returns the nodes.
        occupants: Returns the replicas that are already placed.
        avoid: Returns the ids or names of nodes to avoid, even if Ray reports them alive.
    """

    def __init__(
        self,
        runtime: OrganRuntime,
        occupants: Callable[[], Iterable[Occupant]],
        *,
        avoid: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._runtime = runtime
        self._occupants = occupants
        self._avoid = avoid
        self._starts = Starts()
        self._waiting: dict[Key, _Waiter] = {}
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._nodes: list[Node] = []
        self._asked_at = -NODES_AGE_S

    async def place(self, request: Request, *, tell: Callable[[str], None]) -> str | None:
        """Wait until a replica's process may start; return its node, None if no present node can hold it.

        Args:
            request: The replica.
            tell: Called with the reason why it must wait.
        """
        waiter = _Waiter(request, asyncio.get_running_loop().create_future(), tell)
        self._waiting[request.key] = waiter
        self._changed.set()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._give_turns())
        try:
            return await waiter.granted
        except BaseException:
            self.give_back(request)
            raise
        finally:
            del self._waiting[request.key]

    async def places(self) -> list[Node]:
        """Return the nodes on which a process may start; the list is at most NODES_AGE_S old."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= NODES_AGE_S:
            self._nodes, self._asked_at = await self._runtime.places(), now
        avoided = self._avoid()
        return [node for node in self._nodes if node.node_id not in avoided and node.name not in avoided]

    async def fits(self, spec: OrganSpec) -> bool:
        """Return whether a process of an organ may start on any node."""
        return Occupancy(await self.places(), ()).choose(spec) is not None

    async def fits_now(self, requests: Sequence[Request]) -> bool:
        """Return whether all of these replicas have room beside all running processes."""
        occupancy = Occupancy(await self.places(), self._occupants())
        for request in requests:
            choice = occupancy.choose(request.spec)
            if choice is None or not choice.has_room:
                return False
            occupancy.put(request.spec, choice.node.node_id)
        return True

    def has_turn(self, request: Request) -> bool:
        """Return whether a replica's process is being started, on a node with room for it."""
        return self._starts.has_turn(request.key, asyncio.get_running_loop().time())

    def give_back(self, request: Request) -> None:
        """End a replica's turn, if it has one."""
        if self._starts.give_back(request.key):
            self._changed.set()

    async def _give_turns(self) -> None:
        while self._waiting:
            self._changed.clear()
            try:
                await self._admit()
            except Exception as error:
                # If this task ended, nobody would ever get a turn again.
                logger.warning("cannot place processes, retrying: %s", describe(error))
                for waiter in self._waiting.values():
                    waiter.tell("waits for the list of nodes from Ray's head")
            try:
                async with asyncio.timeout(NODES_AGE_S):
                    await self._changed.wait()
                await asyncio.sleep(_TOGETHER_S)
            except TimeoutError:
                continue

    async def _admit(self) -> None:
        nodes, now = await self.places(), asyncio.get_running_loop().time()
        requests = [waiter.request for waiter in self._waiting.values() if not waiter.granted.done()]
        for turn in self._starts.admit(requests, nodes, self._occupants(), now):
            self._waiting[turn.request.key].granted.set_result(turn.node_id)
        reason = self._starts.reason(nodes)
        for waiter in self._waiting.values():
            if not waiter.granted.done():
                waiter.tell(reason)
