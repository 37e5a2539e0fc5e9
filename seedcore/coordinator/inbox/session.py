"""One epoch of the inbox: from the moment at which this process takes the store over, until something ends that."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ray.exceptions import ActorDiedError

from seedcore.coordinator.inbox.decisions import ENDED
from seedcore.coordinator.inbox.floor import ASK_AGAIN, FENCED, OrganProcess, ReplicaLike, WorkFloor
from seedcore.coordinator.inbox.messages import Leased, Opened, Told
from seedcore.coordinator.inbox.pump import Pump
from seedcore.coordinator.inbox.schema import now_ms
from seedcore.coordinator.inbox.store import FencedError, Store
from seedcore.coordinator.inbox.writer import Writer
from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.core.errors import InboxUnavailableError
from seedcore.core.settings import ORGAN_NAME_PREFIX
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)


class Session:
    """The pump, the floor and the waiters of one epoch.

    Args:
        writer: The thread of the store.
        store: The store, which is open.
        opened: What it knew when it was opened.
        runtime: Runs the organs.
        replicas: Returns the processes to which tasks may be sent now.
    """

    def __init__(
        self,
        writer: Writer,
        store: Store,
        opened: Opened,
        *,
        runtime: OrganRuntime,
        replicas: Callable[[], Iterable[ReplicaLike]],
    ) -> None:
        self.epoch = opened.epoch
        self.writer, self.store = writer, store
        self.recovering: dict[tuple[str, str], int] = {}
        """Number of tasks of an earlier epoch, by the process that has to tell about them."""
        self._runtime = runtime
        self._leased = opened.leased
        self._waiters: dict[int, list[asyncio.Future[Told]]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held_until = 0.0
        self._organism: OrganismSpec | None = None
        self._replicas = replicas
        self.floor = WorkFloor(
            opened.epoch,
            replicas=self._open_replicas,
            end=lambda ending: self.pump.end(ending),  # noqa: PLW0108 - there is no pump yet
            failed=self._fail,
        )
        self.pump = Pump(writer, store, self.floor, lanes=opened.lanes, told=self._told)
        self.counts = opened.counts

    def next_id(self) -> int:
        """Return the id of a new task."""
        return self.store.next_id()

    def forget(self, task_ids: list[int]) -> None:
        """Delete tasks of our own; if that fails, the next turn fails, too."""
        deleting = self.writer.call(self.store.forget, task_ids)
        deleting.add_done_callback(lambda done: done.cancelled() or done.exception())

    def sync(self, organism: OrganismSpec) -> None:
        """Take over the schedules of an organism, if it is another one than before."""
        if organism is not self._organism and not self.pump.is_closed:
            self._organism = organism
            work = self.pump.on_schedules(lambda table, now: table.sync(organism.organs, organism.schedules, now))
            # If it fails, the epoch ends, and the next one does it again.
            work.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def run(self, *, adopted: Callable[[], None]) -> None:
        """Adopt what earlier epochs have given to the organs, and make turns until something fails.

        Args:
            adopted: Called when every organ that answers at once has been asked.

        Raises:
            FencedError: Another process has taken over.
            Exception: The store cannot be relied on any more.
        """
        pump = asyncio.create_task(self.pump.run())
        adoption = asyncio.create_task(self._adopt_all())
        adoption.add_done_callback(lambda _: adopted())
        try:
            awaited = {pump, adoption, self._failed}
            while True:
                done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
                awaited -= done
        finally:
            for task in (pump, adoption):
                task.cancel()
            self.floor.close()
            self._failed.cancel()
            self.release_waiters()
            await asyncio.wait({pump, adoption})

    async def wait(self, task_id: int, wait_s: float, *, now: Told | None = None) -> Told | None:
        """Return what may be told about a task once it has ended, or after ``wait_s``; None if there is none.

        Args:
            task_id: The task.
            wait_s: Seconds.
            now: Where it stands, if the caller knows that it cannot have ended meanwhile.
        """
        waiter: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, []).append(waiter)
        try:
            # Look after the waiter is there, or an end between the two would be missed.
            told = now or await self.writer.call(self.store.told, task_id)
            if told is None or told.state in ENDED or wait_s <= 0:
                return told
            try:
                async with asyncio.timeout(wait_s):
                    return await waiter
            except TimeoutError:
                return await self.writer.call(self.store.told, task_id)
        finally:
            waiters = self._waiters.get(task_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(task_id, None)

    def release_waiters(self) -> None:
        """Let nobody wait any longer; the outcome will be known when the inbox is back."""
        waiters, self._waiters = self._waiters, {}
        for waiter in (one for ones in waiters.values() for one in ones if not one.done()):
            text = "the task is accepted; its outcome will be known when the inbox is back"
            waiter.set_exception(InboxUnavailableError(text, "unknown", 1.0))

    def _open_replicas(self) -> Iterable[ReplicaLike]:
        return () if asyncio.get_running_loop().time() < self.held_until else self._replicas()

    def _told(self, told: Told) -> None:
        if told.state in ENDED:
            for waiter in self._waiters.pop(told.id, ()):
                if not waiter.done():
                    waiter.set_result(told)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _adopt_all(self) -> None:
        groups: dict[tuple[str, str], list[Leased]] = defaultdict(list)
        for one in self._leased:
            groups[one.organ, one.boot].append(one)
        self.recovering = {key: len(ones) for key, ones in groups.items()}
        if not groups:
            return
        handles = await self._handles()
        adoptions = [
            self._adopt(OrganProcess(organ, boot, handles.get(ORGAN_NAME_PREFIX + organ)), ones)
            for (organ, boot), ones in groups.items()
        ]
        await asyncio.gather(*adoptions)
        logger.info("tasks of the last epoch: %s", self.floor.adopted)

    async def _handles(self) -> dict[str, Any]:
        """Return the actors of all organs; while Ray's head is away, wait for it."""
        failures = 0
        while True:
            try:
                return await self._runtime.others(set())
            except Exception as error:
                logger.warning("cannot find the organs, asking again: %s", describe(error))
                failures += 1
                await asyncio.sleep(ASK_AGAIN.delay_s(failures))

    async def _adopt(self, process: OrganProcess, leased: list[Leased]) -> None:
        """Find out what became of the tasks of one process; retry while it is not reachable."""
        key = (process.organ, process.boot)
        failures = 0
        while process.handle is not None:
            try:
                reply = await process.ask("adopt", self.epoch, [(one.id, one.attempt) for one in leased])
            except ActorDiedError:
                break
            except Exception as error:
                if all(one.until <= now_ms() for one in leased):
                    logger.warning("organ %s has not answered in time: %s", process.organ, describe(error))
                    break
                failures += 1
                await asyncio.sleep(ASK_AGAIN.delay_s(failures))
                continue
            if reply["fenced"]:
                raise FencedError(FENCED)
            if reply["boot"] != process.boot:
                break
            self.floor.adopt(process, leased, reply["entries"], now_ms())
            del self.recovering[key]
            return
        self.floor.lose(leased)
        del self.recovering[key]
