"""Test tasks from standard input and from files: order, limits, retries and exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import command, run
from tests.support.fake_cluster import FakeCluster
from tests.support.waiting import eventually


class Work:
    """Executes the tasks of the fake Coordinator, and records how many are in flight at once."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.at_once = 0
        self.most = 0
        self.hold = threading.Event()
        self.hold.set()
        self._lock = threading.Lock()

    def __call__(self, task: dict[str, Any]) -> tuple[Any, ...] | None:
        name = str(task.get("id"))
        with self._lock:
            self.asked[name] += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            self.hold.wait(60)
            return self.answer(task, self.asked[name])
        finally:
            with self._lock:
                self.at_once -= 1

    def answer(self, task: dict[str, Any], times: int) -> tuple[Any, ...] | None:
        kind = task["type"]
        if kind == "break":
            return None
        if kind == "busy" and times < 3:
            refused = {
                "success": False,
                "error": "busy",
                "error_type": "OverloadedError",
                "executed": "no",
                "task_type": kind,
                "retry_after_s": 0.05,
            }
            return (429, refused, {"Retry-After": "0.1"}) if times == 1 else (503, refused)
        if kind == "fail":
            return 500, {"success": False, "error": "no", "error_type": "OSError", "task_type": kind}
        return 200, {"success": True, "result": task.get("params"), "task_type": kind}


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def cluster(tmp_path: Path, work: Work) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path).running() as fake:
        fake.work = work
        yield fake


def tasks(*kinds: str) -> str:
    lines = [{"type": kind, "id": f"{kind}-{number}", "params": {"n": number}} for number, kind in enumerate(kinds, 1)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def outcomes(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_whole_task_comes_from_standard_input(cluster: FakeCluster) -> None:
    done = run(cluster, "submit", "-", "--timeout", "5", text='{"type": "echo", "params": {"a": 1}, "domain": "d"}')

    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["result"] == {"a": 1}
    assert cluster.seen[0][2] == {"type": "echo", "params": {"a": 1}, "domain": "d", "timeout_s": 5.0}


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["-"], "{", ["standard input", "line 1 column 2", "one JSON object"]),
        (["-"], "", ["standard input", "one JSON object"]),
        (["-"], "[]", ["an array", "one JSON object"]),
        (["-", "--params", "{}"], "{}", ["--params", "exclude each other"]),
        (["add", "--jsonl", "-"], "", ["--jsonl", "TYPE"]),
        (["add", "--in-flight", "3"], "", ["--in-flight", "--jsonl"]),
        (["--jsonl", "/no/such/file"], "", ["/no/such/file"]),
        (["--jsonl", "-", "--in-flight", "0"], "", ["--in-flight", "1<=x<=1000"]),
        ([], "", ["TYPE", "--jsonl"]),
    ],
)
def test_wrong_input_is_named_and_nothing_is_sent(
    cluster: FakeCluster, arguments: list[str], text: str, words: list[str]
) -> None:
    done = run(cluster, "submit", *arguments, text=text)

    assert (done.exit_code, done.stdout) == (2, "")
    for word in words:
        assert word in done.stderr
    assert cluster.seen == []


def test_many_tasks_are_answered_in_their_order_and_bounded_in_flight(
    cluster: FakeCluster, work: Work, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n" + tasks(*["echo"] * 40) + "\n\n")
    work.hold.clear()
    threading.Timer(0.5, work.hold.set).start()

    done = run(cluster, "submit", "--jsonl", str(path), "--in-flight", "4")

    assert done.exit_code == 0, done.stderr
    answers = outcomes(done.stdout)
    assert [answer["line"] for answer in answers] == list(range(2, 42))
    assert [answer["result"]["n"] for answer in answers] == list(range(1, 41))
    assert work.most == 4
    assert done.stderr.startswith("40 tasks: 40 succeeded, 0 failed, in ")


def test_one_that_fails_does_not_stop_the_others(cluster: FakeCluster) -> None:
    text = tasks("echo", "fail", "echo") + "{not json\n[1]\n" + tasks("echo")

    done = run(cluster, "submit", "--jsonl", "-", text=text)

    assert done.exit_code == 1
    answers = outcomes(done.stdout)
    assert [answer["success"] for answer in answers] == [True, False, True, False, False, True]
    assert answers[1]["error_type"] == "OSError"
    assert answers[3]["error"].startswith("line 4: line 1 column 2: ")
    assert "an array" in answers[4]["error"]
    assert {answers[3]["executed"], answers[4]["executed"]} == {"no"}
    assert "6 tasks: 3 succeeded, 3 failed" in done.stderr


def test_no_tasks_are_no_failure(cluster: FakeCluster) -> None:
    done = run(cluster, "submit", "--jsonl", "-", text="\n \n")

    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("0 tasks: 0 succeeded, 0 failed")


def test_defaults_are_for_tasks_that_do_not_say_so_themselves(cluster: FakeCluster) -> None:
    text = '{"type": "echo", "timeout_s": 3}\n{"type": "echo"}\n'

    assert run(cluster, "submit", "--jsonl", "-", "--timeout", "9", "--in-flight", "1", text=text).exit_code == 0

    assert [body["timeout_s"] for _, path, body, _ in cluster.seen if path == "/coordinator/tasks"] == [3, 9.0]


def test_what_has_not_begun_is_sent_again(cluster: FakeCluster, work: Work) -> None:
    done = run(cluster, "submit", "--jsonl", "-", text=tasks("busy", "busy"))

    assert done.exit_code == 0, done.stdout
    assert set(work.asked.values()) == {3}


def test_without_patience_a_refusal_is_the_outcome(cluster: FakeCluster, work: Work) -> None:
    done = run(cluster, "submit", "--jsonl", "-", "--patience", "0", text=tasks("busy"))

    assert done.exit_code == 1
    assert outcomes(done.stdout)[0]["error_type"] == "OverloadedError"
    assert set(work.asked.values()) == {1}


def test_what_may_have_been_done_is_not_sent_again(cluster: FakeCluster, work: Work) -> None:
    done = run(cluster, "submit", "--jsonl", "-", text=tasks("echo", "break", "echo"))

    assert done.exit_code == 1
    lost = outcomes(done.stdout)[1]
    assert (lost["error_type"], lost["executed"]) == ("ConnectionError", "unknown")
    assert "may have been executed" in lost["error"]
    assert set(work.asked.values()) == {1}


def test_where_there_is_nobody_every_line_that_was_read_is_accounted_for(cluster: FakeCluster) -> None:
    cluster.coordinator = None

    done = run(
        cluster, "submit", "--jsonl", "-", "--patience", "0.2", "--in-flight", "2", text=tasks(*["echo"] * 30),
        SEEDCORE_HTTP_PORT="1",
    )  # fmt: skip

    assert done.exit_code == 4
    answers = outcomes(done.stdout)
    assert {answer["executed"] for answer in answers} == {"no"}
    assert [answer["line"] for answer in answers] == list(range(1, len(answers) + 1))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("absent: there is no Coordinator; `seedcore bootstrap` starts one; ")
    assert last.endswith(f"stopped reading, and {len(answers)} tasks that were read were not sent")


def test_outcomes_of_a_stream_come_while_it_goes_on(cluster: FakeCluster) -> None:
    argv, env = command(cluster, "submit", "--jsonl", "-")
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for number in (1, 2):
            process.stdin.write(tasks("echo"))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_unordered_outcomes_come_as_they_are_there(cluster: FakeCluster, work: Work) -> None:
    text = tasks("busy", "echo")

    done = run(cluster, "submit", "--jsonl", "-", "--unordered", text=text)

    assert done.exit_code == 0
    assert [answer["line"] for answer in outcomes(done.stdout)] == [2, 1]


def test_ctrl_c_says_how_far_it_was(cluster: FakeCluster, work: Work) -> None:
    work.hold.clear()
    argv, env = command(cluster, "submit", "--jsonl", "-", "--in-flight", "2")
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(tasks(*["echo"] * 10))
    process.stdin.flush()
    eventually(lambda: work.at_once == 2, what="two tasks under way")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    work.hold.set()

    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err


def test_a_terminal_gets_a_bar(cluster: FakeCluster, work: Work, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(tasks("echo", "fail", "echo", "echo"))
    work.hold.clear()
    argv, env = command(cluster, "submit", "--jsonl", str(path), "--in-flight", "1")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv, env={**env, "TERM": "xterm"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    try:
        text = os.read(ours, 4096).decode()
        work.hold.set()
        while chunk := _read(ours):
            text += chunk
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "0 of 4  0.0/s" in text
    assert "4 tasks: 3 succeeded, 1 failed" in text
    assert "\r\x1b[K" in text


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 4096).decode()
    except OSError:
        # Linux raises this error when no process holds the other end.
        return ""


def test_a_task_that_a_proxy_answers_may_have_been_done(cluster: FakeCluster, work: Work) -> None:
    cluster.work = lambda task: (502, {"detail": "bad gateway"})

    done = run(cluster, "submit", "--jsonl", "-", "--patience", "0", text=tasks("pay"))

    (answer,) = outcomes(done.stdout)
    assert (done.exit_code, answer["executed"], answer["error_type"]) == (4, "unknown", "ConnectionError")
    assert "HTTP 502" in answer["error"]
    assert "may have been executed" in answer["error"]
    assert len(cluster.seen) == 1
    assert "0 tasks that were read were not sent" in done.stderr
