"""Test the guard of event loops in unit tests: a blocked loop fails a test, a slow machine does not."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.loop_guard import LoopGuard, guarded_loops


@pytest.fixture(autouse=True)
def loop_guard() -> None:
    """Disable the guard, because these tests block their loops and create their own guards."""


def sleep_shortly() -> None:
    for _ in range(5):
        time.sleep(0.03)


def compute() -> None:
    until = time.thread_time() + 0.15
    while time.thread_time() < until:
        pass


def faults_of(callback: Callable[[], object]) -> list[str]:
    async def run_it() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_soon(callback)
        loop.call_soon(done.set_result, None)
        await done

    guard: LoopGuard
    with guarded_loops() as guard:
        asyncio.run(run_it())
    return guard.faults


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (lambda: time.sleep(0.12), "waiting in time.sleep"),
        (sleep_shortly, "waiting in time.sleep"),
        (lambda: subprocess.run(["sleep", "0.2"], check=False), "waiting in Popen."),
        (lambda: threading.Event().wait(0.12), "waiting in Condition.wait"),
        (compute, "of CPU"),
    ],
    ids=["sleep", "short sleeps", "process", "event", "computation"],
)
def test_a_callback_that_blocks_its_loop_is_found(callback: Callable[[], object], said: str) -> None:
    (fault,) = faults_of(callback)
    assert "blocks its loop" in fault
    assert said in fault


def test_what_waits_elsewhere_blocks_no_loop() -> None:
    async def patient() -> None:
        await asyncio.sleep(0.15)
        await asyncio.to_thread(time.sleep, 0.15)

    def start_a_thread() -> None:
        # On a busy machine `start` waits for this.
        thread = threading.Thread(target=lambda: None)
        thread._started.wait = lambda *_: time.sleep(0.12)  # type: ignore[attr-defined]
        thread.start()

    def collect() -> None:
        until = time.thread_time() + 0.15
        while time.thread_time() < until:
            gc.collect()

    with guarded_loops() as guard:
        asyncio.run(patient())
        time.sleep(0.12)
    assert faults_of(start_a_thread) == faults_of(collect) == []
    assert faults_of(lambda: time.sleep(0.01)) == guard.faults == []
