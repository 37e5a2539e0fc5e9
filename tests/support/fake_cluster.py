"""Serve the HTTP interfaces of a cluster without a cluster: the test sets the answers of dashboard and Coordinator."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedcore.core.settings import Settings

TOKEN = "a-token-of-the-tests"
NODE = "cafe" * 14


class FakeCluster:
    """One server for both; a test may change every answer at any moment.

    Attributes:
        dashboard_code: HTTP status of the dashboard.
        summary: Nodes in the dashboard's older endpoint; None lists each node of ``nodes`` with an agent that answers.
        truncated: Makes the dashboard list only a part of the actors.
        coordinator: The actor's row, None for no row.
        body: Body of ``/coordinator/status``; ``code`` is its HTTP status.
        answer: Body of ``POST /coordinator/tasks``.
        work: Replaces ``answer``: called with the task, returns (code, body) or (code, body, headers), or None
            for a connection that breaks.
        activity: Body of ``/coordinator/activity``; None for 404.
        organism: Body of ``/organism/status``.
        hang: While set, the Coordinator's requests are not answered.
        seen: All requests so far: method, path, body, headers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dashboard_code = 200
        self.nodes: list[dict[str, Any]] = [{"node_id": NODE, "node_name": "head", "state": "ALIVE"}]
        self.summary: list[dict[str, Any]] | None = None
        self.truncated = False
        self.coordinator: dict[str, Any] | None = {
            "actor_id": "a1",
            "name": "seedcore_coordinator",
            "class_name": "Coordinator",
            "state": "ALIVE",
            "pid": 4_000_001,
            "node_id": NODE,
            "num_restarts": "0",
        }
        self.code = 200
        self.body: dict[str, Any] = {
            "status": "healthy",
            "reason": "ready",
            "message": "1 of 1 organs ready",
            "organism_initialized": True,
            "coordinator": "available",
            "degraded": False,
            "release": "1.0+abc",
            "since": "2026-01-01T00:00:00.000+00:00",
            "stage": "1 of 1 organs ready",
            "progress": {"ready": 1, "total": 1},
            "init_seconds": 1.5,
            "pid": 4_000_001,
            "organs": [],
        }
        self.answer: tuple[int, Any] = (200, {"success": True, "result": 42, "task_type": "add"})
        self.work: Callable[[dict[str, Any]], tuple[Any, ...] | None] | None = None
        self.activity: dict[str, Any] | None = None
        self.organism: list[dict[str, Any]] = []
        self.hang = threading.Event()
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        self.token_path = directory / "token"
        self.token_path.write_text(TOKEN)
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.cluster = self
        self.port: int = self._server.server_address[1]

    def initializing(self, stage: str) -> None:
        """Make the Coordinator report that it is initializing."""
        assert self.coordinator is not None
        self.coordinator["state"] = "PENDING_CREATION"
        self.code = 503
        self.body |= {"status": "initializing", "reason": "starting", "message": stage, "stage": stage}

    @property
    def settings(self) -> Settings:
        """Return settings that point to this server."""
        return Settings.from_env(self.env())

    def env(self) -> dict[str, str]:
        """Return the environment of a command that uses this server."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {
            **kept,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_NAMESPACE": "fake",
            "SEEDCORE_DASHBOARD_URL": f"http://127.0.0.1:{self.port}",
            "SEEDCORE_HTTP_PORT": str(self.port),
            "SEEDCORE_STATE_DIR": str(self.directory / "state"),
        }

    def reply(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[Any, ...] | None:
        """Return the answer to one request, None for no answer at all."""
        coordinators = not path.startswith("/api")
        if coordinators and self.hang.is_set():
            self._ended.wait(60)
            return None
        if path not in {"/livez", "/api/healthz"} and headers.get("Authorization") != f"Bearer {TOKEN}":
            return (403 if "Authorization" in headers else 401), {"detail": "no"}
        if self.work is not None and method == "POST":
            return self.work(body)
        pages = {
            "GET /livez": (200, {"alive": True}),
            "GET /nodes": (self.dashboard_code, {"result": True, "data": {"summary": self._summary()}}),
            "GET /api/healthz": (200, "success"),
            "GET /api/v0/nodes": (self.dashboard_code, _rows(self.nodes)),
            "GET /api/v0/actors": (self.dashboard_code, self._actors()),
            "GET /coordinator/status": (self.code, {"snapshot_at": time.time(), **self.body}),
            "GET /organism/status": (200, self.organism),
            "POST /coordinator/tasks": self.answer,
        }
        if self.activity is not None:
            pages["GET /coordinator/activity"] = (200, self.activity)
        return pages.get(f"{method} {path}", (404, {"detail": "Not Found"}))

    def _summary(self) -> list[dict[str, Any]]:
        if self.summary is not None:
            return self.summary
        agent = {"nodeManagerAddress": "127.0.0.1", "dashboardAgentListenPort": self.port}
        return [
            {"raylet": {"nodeId": node["node_id"], "nodeName": node["node_name"], "state": node["state"], **agent}}
            for node in self.nodes
        ]

    def _actors(self) -> dict[str, Any]:
        document = _rows([self.coordinator] if self.coordinator else [])
        if self.truncated:
            document["data"]["result"] |= {"total": 12_000, "num_after_truncation": 10_000}
        return document

    @contextmanager
    def running(self) -> Iterator[FakeCluster]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"result": True, "data": {"result": {"result": rows}}}


class _Server(ThreadingHTTPServer):
    cluster: FakeCluster


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._do(None)

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: Any) -> None:
        pass

    def _do(self, body: Any) -> None:
        path, headers = urlsplit(self.path).path, dict(self.headers.items())
        batch = body["params"]["tasks"] if isinstance(body, dict) and body.get("type") == "execute_many" else []
        for one in batch or [body]:
            self.server.cluster.seen.append((self.command, path, one, headers))
        if batch:
            self._do_many(batch, path, headers)
            return
        reply = self.server.cluster.reply(self.command, path, headers, body)
        if reply is None:
            self.close_connection = True
            return
        data = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Length", str(len(data)))
        for name, value in (reply[2] if len(reply) > 2 else {}).items():
            self.send_header(name, value)
        self.end_headers()
        self._write(data)

    def _do_many(self, batch: list[Any], path: str, headers: dict[str, str]) -> None:
        """Execute tasks concurrently and send each answer as it arrives; a task that breaks ends the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        self.close_connection = True

        def work(task: Any) -> tuple[Any, ...] | None:
            return self.server.cluster.reply(self.command, path, headers, task)

        with ThreadPoolExecutor(len(batch)) as pool:
            index = {pool.submit(work, task): place for place, task in enumerate(batch)}
            for done in as_completed(index):
                reply = done.result()
                if reply is not None:
                    self._write(json.dumps({"index": index[done], "answer": reply[1]}).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            return
