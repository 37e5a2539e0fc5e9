"""The organ's side of durable tasks: no attempt begins twice, and an answer is kept until it is recorded.

An organ's process outlives the Coordinator. The next Coordinator asks it for the outcome of the attempts that the last
one had sent. A new Coordinator opens a new epoch of the inbox; the process refuses orders of an older epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from seedcore.core.errors import Executed
from seedcore.core.task import CANARY, failure, payload_bytes
from seedcore.organ.task_queue import Deadlines, Work, WorkQueue

KEPT_BYTES = 256 * 1024 * 1024
"""Above this size, the oldest answers that nobody has recorded lose their results."""
_CLOSED_LIMIT = 100_000

Pair = tuple[str, int]
"""Id and attempt of a task."""
Done = Callable[[dict[str, Any]], None]


class _Held:
    """One attempt that was begun here."""

    __slots__ = ("answer", "attempt", "is_forgotten", "size", "work")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.answer: dict[str, Any] | None = None
        self.size = 0
        self.is_forgotten = False
        self.work: Work | None = None


class Ledger:
    """The attempts of one process, by the id of their task.

    Args:
        boot: Identifies the process.
    """

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.epoch = 0
        self._held: dict[str, _Held] = {}
        # Attempts that the Coordinator believes never began, so they must not begin later.
        self._closed: dict[str, int] = {}
        self._bytes = 0

    def raise_epoch(self, epoch: int) -> bool:
        """Accept orders of this epoch from now on; return False if it is older than a known one."""
        if epoch < self.epoch:
            return False
        self.epoch = epoch
        return True

    def begin(self, task_id: str, attempt: int, *, epoch: int, boot: str) -> tuple[str, Executed] | None:
        """Record that an attempt begins; return why it must not, and whether it has begun elsewhere."""
        if not self.raise_epoch(epoch):
            return "another Coordinator has taken the inbox over", "no"
        if boot != self.boot:
            return "the task was given to an earlier process of the organ", "no"
        if self._closed.get(task_id, 0) >= attempt:
            return "the attempt was given back", "no"
        held = self._held.get(task_id)
        if held is not None and held.attempt >= attempt:
            return "the attempt has begun already", "unknown"
        if held is not None:
            self._drop(task_id)
        self._closed.pop(task_id, None)
        self._held[task_id] = _Held(attempt)
        return None

    def began(self, task_id: str, work: Work | None) -> None:
        """Keep the work of an attempt, so that it can be cancelled."""
        if (held := self._held.get(task_id)) is not None and held.answer is None:
            held.work = work

    def end(self, task_id: str, attempt: int, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the answer of an attempt; return it with the number of the attempt, which marks it as the organ's."""
        marked = {**answer, "attempt": attempt}
        held = self._held.get(task_id)
        if held is None or held.attempt != attempt or held.answer is not None:
            return marked
        held.work = None
        if held.is_forgotten:
            del self._held[task_id]
            return marked
        held.answer, held.size = marked, payload_bytes(marked, limit=KEPT_BYTES)
        self._bytes += held.size
        if self._bytes > KEPT_BYTES:
            self._shrink()
        return marked

    def about(self, pairs: Iterable[Pair]) -> list[list[Any]]:
        """Return ``[id, attempt, "running" | "answered" | "never", answer or None]`` for each pair.

        An attempt that never began will never begin, so the task can be given to another process.
        """
        entries: list[list[Any]] = []
        for task_id, attempt in pairs:
            held = self._held.get(task_id)
            if held is None or held.attempt != attempt:
                self._close(task_id, attempt)
                entries.append([task_id, attempt, "never", None])
            else:
                entries.append([task_id, attempt, "running" if held.answer is None else "answered", held.answer])
        return entries

    def keep_only(self, pairs: Iterable[Pair]) -> None:
        """Forget all other attempts: they were recorded, or somebody else has decided about them."""
        kept = set(pairs)
        for task_id, held in list(self._held.items()):
            if (task_id, held.attempt) not in kept:
                self._forget(task_id, held)

    def forget(self, pairs: Iterable[Pair]) -> None:
        """Forget attempts whose outcome is recorded."""
        for task_id, attempt in pairs:
            held = self._held.get(task_id)
            if held is not None and held.attempt == attempt:
                self._forget(task_id, held)

    def works(self, pairs: Iterable[Pair]) -> list[Work]:
        """Return the work of those attempts that have not been answered."""
        found = [(self._held.get(task_id), attempt) for task_id, attempt in pairs]
        return [held.work for held, attempt in found if held and held.work and held.attempt == attempt]

    def _forget(self, task_id: str, held: _Held) -> None:
        if held.answer is None:
            held.is_forgotten = True
        else:
            self._drop(task_id)

    def _drop(self, task_id: str) -> None:
        self._bytes -= self._held.pop(task_id).size

    def _close(self, task_id: str, attempt: int) -> None:
        self._closed[task_id] = max(attempt, self._closed.get(task_id, 0))
        if len(self._closed) > _CLOSED_LIMIT:
            del self._closed[next(iter(self._closed))]

    def _shrink(self) -> None:
        """Keep of the oldest answers only whether the code ran."""
        for held in self._held.values():
            if held.answer is None or held.size < _WORTH_IT:
                continue
            executed: Executed = "yes" if held.answer["success"] else held.answer.get("executed", "unknown")
            text = "the task was executed, but its answer was lost: too many answers waited for the Coordinator"
            lost = failure(text, error_type="ResultLostError", task_type=held.answer["task_type"], executed=executed)
            self._bytes -= held.size
            held.answer, held.size = {**lost, "attempt": held.attempt}, 0
            if self._bytes <= KEPT_BYTES // 2:
                return


_WORTH_IT = 4096


class DurableTasks:
    """Begin durable tasks and answer the Coordinator's questions about them.

    Args:
        boot: Identifies the process.
        queue: Executes them.
    """

    def __init__(self, boot: str, queue: WorkQueue) -> None:
        self.ledger = Ledger(boot)
        self._queue = queue
        self._news = asyncio.Event()
        self._proofs: set[asyncio.Task[None]] = set()

    def submit(self, task: Mapping[str, Any], timeout_s: float, done: Done, deadlines: Deadlines | None = None) -> None:
        """Execute one task that has a ``ticket``: the epoch, and the boot of the process that it is for."""
        epoch, boot = task["ticket"]
        task_id, attempt = task["id"], task["attempt"]
        refusal = self.ledger.begin(task_id, attempt, epoch=epoch, boot=boot)
        if refusal is not None:
            # The answer has no attempt, so the Coordinator asks for the task's outcome before it decides.
            why, executed = refusal
            done(failure(why, error_type="FencedError", task_type=task["type"], executed=executed))
            return

        def ended(answer: dict[str, Any]) -> None:
            marked = self.ledger.end(task_id, attempt, answer)
            news, self._news = self._news, asyncio.Event()
            news.set()
            done(marked)

        if task["type"] == CANARY:
            proof = asyncio.create_task(self._prove(ended))
            self._proofs.add(proof)
            proof.add_done_callback(self._proofs.discard)
            return
        plain = {key: value for key, value in task.items() if key != "ticket"}
        self.ledger.began(task_id, self._queue.submit(plain, timeout_s, ended, deadlines=deadlines))

    async def _prove(self, done: Done) -> None:
        """Answer the inbox's own task, which goes to the thread of an agent and not to its code."""
        if (error := await self._queue.prove()) is not None:
            done(failure(error, error_type="OrganUnavailableError", task_type=CANARY, executed="no"))
            return
        answer = {"success": True, "result": None, "organ_id": self._queue.spec.id, "agent_id": None}
        done({**answer, "task_type": CANARY, "duration_s": 0.0})

    async def serve(self, order: Sequence[Any]) -> dict[str, Any]:
        """Answer the Coordinator.

        Args:
            order: ``verb, epoch, boot, pairs, max_wait_s``. The verb is ``adopt`` (forget all other attempts, and
                tell about these), ``wait`` (tell about these once one of them is not running, or after the wait),
                ``ack`` (forget these) or ``cancel``.

        Returns:
            ``boot`` of this process; ``fenced`` if the epoch is over; ``entries`` as of :meth:`Ledger.about`, none if
            the order is for another process.
        """
        verb, epoch, boot, pairs, max_wait_s = order
        pairs = [(task_id, attempt) for task_id, attempt in pairs]
        ledger = self.ledger
        reply: dict[str, Any] = {"boot": ledger.boot, "fenced": not ledger.raise_epoch(epoch), "entries": []}
        if reply["fenced"] or boot != ledger.boot:
            return reply
        if verb == "ack":
            ledger.forget(pairs)
        elif verb == "cancel":
            for work in ledger.works(pairs):
                work.withdraw("the task was cancelled")
        elif verb == "adopt":
            ledger.keep_only(pairs)
            reply["entries"] = ledger.about(pairs)
        else:
            reply["entries"] = await self._wait(pairs, max_wait_s)
            reply["fenced"] = epoch < ledger.epoch
        return reply

    async def _wait(self, pairs: list[Pair], max_wait_s: float) -> list[list[Any]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max_wait_s
        while True:
            news = self._news
            entries = self.ledger.about(pairs)
            if any(entry[2] != "running" for entry in entries) or loop.time() >= deadline:
                return entries
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await news.wait()
