"""Probe a deployment continuously: send a task through every organ four times a second, and ask for the status."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.oracle import Asked, Executed, Replaced, Seen
from benchmarks.chaos.places import Place
from seedcore.status.http_client import NotSentError, Response, request

EVERY_S = 0.25
TASK_TIMEOUT_S = 20.0
STATUS_TIMEOUT_S = 8.0
# Enough threads for a deployment that hangs, which blocks each of them for TASK_TIMEOUT_S.
THREADS = 300


@dataclass
class Record:
    """All requests and answers; threads append to it, and readers take a snapshot or wait for the threads to end."""

    sent: list[int] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    processes: dict[str, tuple[str, int]] = field(default_factory=dict)


class Probes:
    """Threads that probe ``place`` until :meth:`stop`.

    Args:
        place: The deployment.
        organs: Maps each organ's id to a task type that is routed to it.
    """

    def __init__(self, place: Place, organs: dict[str, str]) -> None:
        self.record = Record()
        self._place = place
        self._organs = organs
        self._nonces = itertools.count(1)
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")
        self._loops = [
            threading.Thread(target=self._every, args=(self._send_tasks,), name="tasks"),
            threading.Thread(target=self._every, args=(self._ask_http,), name="http"),
            threading.Thread(target=self._one_after_the_other, name="cli"),
        ]

    def start(self) -> None:
        """Start the threads."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Stop sending requests and wait for the pending answers."""
        self._end.set()
        for loop in self._loops:
            loop.join()
        self._pool.shutdown(wait=True)

    def submit(self, organ: str, **params: Any) -> None:
        """Send one task with extra params; its record has the organ's name with an exclamation mark."""
        self._pool.submit(self._task, organ, params)

    def _every(self, do: Callable[[], None]) -> None:
        due = time.monotonic()
        while not self._end.wait(max(0.0, due - time.monotonic())):
            due += EVERY_S
            do()

    def _one_after_the_other(self) -> None:
        while not self._end.wait(EVERY_S):
            self._ask_cli()

    def _send_tasks(self) -> None:
        for organ in self._organs:
            self._pool.submit(self._task, organ, {})

    def _task(self, organ: str, params: dict[str, Any]) -> None:
        nonce = next(self._nonces)
        self.record.sent.append(nonce)
        body = {"type": self._organs[organ], "params": {**params, "nonce": nonce}, "timeout_s": TASK_TIMEOUT_S - 5}
        began = time.monotonic()
        try:
            response = self._request("/coordinator/tasks", method="POST", body=body, timeout_s=TASK_TIMEOUT_S)
            executed, error = _executed(response)
        except NotSentError as failure:
            executed, error = "no", str(failure)
        except OSError as failure:
            executed, error = "unknown", str(failure)
        # A task that hangs on request proves nothing about the organ's other work.
        name = f"{organ}!" if params else organ
        self.record.asked.append(Asked(nonce, name, began, time.monotonic(), executed, error))

    def _ask_http(self) -> None:
        self._pool.submit(self._http)

    def _http(self) -> None:
        began = time.monotonic()
        try:
            response = self._request("/coordinator/status", timeout_s=STATUS_TIMEOUT_S)
        except OSError:
            return
        if isinstance(response.body, dict):
            self._note("http", began, response.body, healthy=response.body.get("status") == "healthy")
            self._note_processes(response.body)

    def _ask_cli(self) -> None:
        began = time.monotonic()
        try:
            done = subprocess.run(  # noqa: S603 - the deployed command line
                self._place.status_command(), capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL
            )
            body = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return
        self._note("cli", began, body, healthy=bool(body.get("healthy")))

    def _note(self, channel: str, began: float, body: dict[str, Any], *, healthy: bool) -> None:
        # A degraded organism does not claim that all of it works.
        honest = healthy and not body.get("degraded")
        reason = str(body.get("reason"))
        self.record.seen.append(Seen(channel, began, time.monotonic(), healthy=honest, reason=reason))

    def _note_processes(self, body: dict[str, Any]) -> None:
        names = {node["node_id"]: node["node_name"] for node in (body.get("nodes") or {}).get("list", ())}
        found = {"coordinator": (names.get(body.get("node_id"), ""), body.get("pid"))}
        for organ in body.get("organs") or ():
            for replica in organ["replicas"]:
                what = f"{organ['organ_id']}/{replica['replica']}"
                found[what] = (names.get(replica.get("node_id"), ""), replica.get("pid"))
        for what, (node, pid) in found.items():
            if not isinstance(pid, int) or not pid:
                continue
            before = self.record.processes.get(what)
            if before is not None and before[1] != pid:
                self.record.replaced.append(Replaced(time.monotonic(), what, node, before[1], pid))
            self.record.processes[what] = (node, pid)

    def _request(self, path: str, *, timeout_s: float, method: str = "GET", body: Any = None) -> Response:
        return request(
            f"{self._place.url}{path}",
            method=method,
            token=self._place.token,
            body=body,
            timeout_s=timeout_s,
            certificate=self._place.certificate,
        )


def _executed(response: Response) -> tuple[Executed, str]:
    body = response.body if isinstance(response.body, dict) else {}
    if body.get("success") is True:
        return "success", ""
    error = f"HTTP {response.status}: {body.get('error', 'no JSON')}"
    executed = body.get("executed")
    return (executed, error) if executed in {"yes", "no", "unknown"} else ("unknown", error)


def until(check: Callable[[], bool], *, deadline_s: float) -> bool:
    """Wait until the condition holds; return False if it does not within ``deadline_s`` seconds."""
    deadline = time.monotonic() + deadline_s
    while not check():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True
