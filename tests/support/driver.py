"""Keep one process that has joined Ray and runs code for the tests, instead of a new driver for each question."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TAIL = 3000


class Driver:
    """Client of :mod:`tests.support.driver_process`; replaces a process that fails or does not answer in time.

    Args:
        log_path: File for the output of the process.
    """

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the pid of the process, None if there is none."""
        return None if self._process is None else self._process.pid

    def ask(self, code: str, *, env: dict[str, str], directory: Path, timeout_s: float) -> Any:
        """Run code in the process and return what it passes to ``say``.

        Args:
            code: Python code that may use ``json``, ``os``, ``ray``, ``time``, ``say``, and ``ending``, an ExitStack
                that is closed when the code has ended.
            env: Environment of the process, if this call starts it, and of this question.
            directory: Working directory of the question.
            timeout_s: Seconds for the whole call.
        """
        deadline = time.monotonic() + timeout_s
        process = self._running(env)
        assert process.stdin is not None
        question = json.dumps({"code": code, "env": env, "directory": str(directory)})
        try:
            # Reading the answer detects that the process has just ended.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{question}\n".encode())
            answer: dict[str, Any] = json.loads(self._line(process, deadline))
        except EOFError:
            self.close()
            raise AssertionError(f"the driver process exited: {self._said()}") from None
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            # Its leftovers (threads, clients, a half-finished join) must not affect the next question.
            self.close()
            raise AssertionError(answer["error"])
        return answer["said"]

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.communicate()

    def _running(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            path = [env.get("PYTHONPATH", ""), str(ROOT)]
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", "from tests.support.driver_process import main; main()"],
                    bufsize=0,
                    env={**env, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                    cwd=self._log_path.parent,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    # Ctrl-C must reach only the session, which still needs the driver to clean up.
                    start_new_session=True,
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"the driver did not answer in time: {self._said()}")
            part = os.read(descriptor, 1 << 20)
            if not part:
                raise EOFError
            line += part
        return line

    def _said(self) -> str:
        return self._log_path.read_text(errors="replace")[-_TAIL:]
