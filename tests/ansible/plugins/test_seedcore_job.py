from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import HEALTHY, STARTING, Executable

Run = Callable[..., dict[str, Any]]
RUNNING = {"started": True, "finished": False, "ansible_job_id": "j1"}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "j1"
    path.write_text(json.dumps(RUNNING))
    return path


def test_the_end_of_a_job_is_returned_and_its_file_is_removed(job: Path, executable: Executable, run: Run) -> None:
    job.write_text(json.dumps({"healthy": True, "ansible_job_id": "j1", "stderr": "noise"}))
    answer = run("seedcore_job", path=str(job), executable=str(executable.path))
    assert (answer["finished"], answer["result"], answer["report"]) == (True, {"healthy": True}, {})
    assert not job.exists()
    assert executable.calls() == []


def test_a_new_status_is_returned_at_once_and_only_once(job: Path, executable: Executable, run: Run) -> None:
    executable.prints(STARTING, rc=5)
    first = run("seedcore_job", path=str(job), executable=str(executable.path), namespace="mine")
    assert (first["finished"], first["report"]["message"]) == (False, STARTING["message"])
    assert [environ["RAY_NAMESPACE"] for _, environ in executable.calls()] == ["mine"]

    # The executable itself ends the job when it is asked again.
    executable.write(f"""
        with open({str(job)!r}, "w") as stream:
            stream.write('{{"failed": true, "msg": "late"}}')
        print(json.dumps({STARTING!r}))
    """)
    last = run("seedcore_job", path=str(job), executable=str(executable.path), seen=first["seen"])
    assert (last["finished"], last["result"]) == (True, {"failed": True, "msg": "late"})


def test_a_quiet_job_is_answered_after_its_patience(job: Path, executable: Executable, run: Run) -> None:
    executable.prints(HEALTHY)
    seen = f"{HEALTHY['status']}: {HEALTHY['message']}"
    for content in (json.dumps(RUNNING), ""):
        job.write_text(content)
        answer = run("seedcore_job", path=str(job), executable=str(executable.path), seen=seen, patience=1)
        assert (answer["finished"], answer["report"], answer["seen"]) == (False, {}, seen)
    assert job.exists()


def test_a_job_that_is_gone_is_a_failure(tmp_path: Path, executable: Executable, run: Run) -> None:
    answer = run("seedcore_job", path=str(tmp_path / "none"), executable=str(executable.path))
    assert answer["failed"]
    assert answer["msg"] == f"the job {tmp_path / 'none'} is gone: No such file or directory"
