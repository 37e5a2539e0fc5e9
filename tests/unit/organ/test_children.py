"""Test that the child processes of an organ's process end when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import eventually

PROGRAM = """
import json, multiprocessing, os, subprocess, sys, time
from seedcore.organ.children import end_children_with_this_process

def wait(queue):
    queue.put((os.getpid(), subprocess.Popen(["sleep", "300"]).pid))
    time.sleep(300)

if __name__ == "__main__":
    end_children_with_this_process()
    pids = [subprocess.Popen(["sleep", "300"]).pid]
    pids.append(subprocess.Popen(["sleep", "300"], start_new_session=True).pid)
    shell = subprocess.run(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
    pids.append(int(shell.stdout))
    queue = multiprocessing.get_context("fork").Queue()
    multiprocessing.get_context("fork").Process(target=wait, args=(queue,)).start()
    pids += queue.get()
    print(json.dumps(pids), flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_the_process_that_has_spawned_them(number: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    bystander = subprocess.Popen(["sleep", "300"])
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert process.stdout
        pids = json.loads(process.stdout.readline())
        assert len(pids) == 5
        assert [pid for pid in pids if not _lives(pid)] == []

        process.send_signal(number)
        process.wait(timeout=30)

        eventually(lambda: not any(map(_lives, pids)), timeout_s=60, interval_s=0.1, what="the children have ended")
        assert bystander.poll() is None
    finally:
        process.kill()
        bystander.kill()
        bystander.wait()
        if process.stdout:
            process.stdout.close()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
