"""Test output and exit codes of the command line against an HTTP server in place of the cluster."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import command, run, spawn
from tests.support.fake_cluster import TOKEN, FakeCluster
from tests.support.waiting import eventually

TRACEBACK = "Traceback (most recent call last):\n  File ...\nValueError: disk is full\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "add", "--params", '{"a": 1,\n "b"}'], ["--params", "line 2 column 5", "one JSON object"]),
        (["submit", "add", "--params", "[1]"], ["--params", "an array", "one JSON object"]),
        (["submit", "add", "--params", "true"], ["a boolean", "one JSON object"]),
        (["submit", "add", "--params", '{"a": NaN}'], ["NaN", "one JSON object"]),
        (["submit", "add", "--params", '{"a": 1e999}'], ["1e999", "one JSON object"]),
        (["submit", "add", "--params", '{"a":' * 50_000], ["nested too deep", "one JSON object"]),
        (["submit", "add", "--params", "9" * 5000], ["one JSON object"]),
        (["submit", "add", "--timeout", "0"], ["--timeout", "'0'", "above 0"]),
        (["submit", "add", "--domain", " "], ["--domain", "empty"]),
        (["submit", ""], ["TYPE", "empty"]),
        (["submit"], ["TYPE"]),
        (["status", "--wait", "--timeout", "-1"], ["--timeout", "'-1'", "from 0"]),
        (["status", "--wait", "--timeout", "nan"], ["--timeout", "'nan'", "a number of seconds"]),
        (["status", "--wait", "--timeout", "inf"], ["--timeout", "'inf'", "a number of seconds"]),
        (["status", "--wait", "--stable", "soon"], ["--stable", "'soon'", "a number of seconds"]),
        (["status", "--timeout", "3", "--canary"], ["--timeout and --canary require --wait"]),
        (["status", "--expected-nodes", "0"], ["--expected-nodes", "0", "x>=1"]),
        (["status", "--expected-release", ""], ["--expected-release", "empty"]),
        (["bootstrap", "--wait-timeout", "0"], ["--wait-timeout", "'0'", "above 0"]),
        (["bootstrap", "--bake-tolerance", "nan"], ["--bake-tolerance", "'nan'", "finite"]),
        (["bootstrap", "--bake-tolerance", "-1"], ["--bake-tolerance", "'-1'", "0 or more"]),
        (["bootstrap", "--retries", "-1"], ["--retries", "-1", "0<=x<=100"]),
        (["bootstrap", "--config", "/no/such/organism.yaml"], ["/no/such/organism.yaml"]),
        (["config", "check", "--config", "/no/such/organism.yaml"], ["/no/such/organism.yaml"]),
        (["supervise", "--hang-timeout", "-5"], ["--hang-timeout", "'-5'", "above 0"]),
        (["stauts"], ["No such command 'stauts'"]),
        (["status", "--jsno"], ["No such option", "--json"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_input_is_named_with_what_is_allowed_and_nothing_is_asked(
    cluster: FakeCluster, arguments: list[str], words: list[str]
) -> None:
    done = run(cluster, *arguments)

    assert done.exit_code == 2
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert len(done.stderr) < 1000
    assert "Traceback" not in done.stderr
    assert cluster.seen == []


def test_params_that_are_not_text_are_refused(cluster: FakeCluster) -> None:
    argv, env = command(cluster, "submit", "add", "--params", "-")
    done = subprocess.run(argv, env=env, input=b"\xff\xfe{}", capture_output=True, check=False)

    assert done.returncode == 2
    assert b"UTF-8" in done.stderr
    assert cluster.seen == []


def test_a_bad_environment_is_named(cluster: FakeCluster) -> None:
    done = run(cluster, "status", SEEDCORE_HTTP_PORT="http", RAY_AUTH_MODE="maybe")

    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "environment: SEEDCORE_HTTP_PORT is 'http', expected a port from 1 to 65535",
        "environment: RAY_AUTH_MODE is 'maybe', expected token or disabled",
    ]


def test_a_deployment_may_set_the_log_level_of_every_command(cluster: FakeCluster) -> None:
    argv, env = command(cluster, "ping")
    done = subprocess.run(argv, env={**env, "SEEDCORE_LOG_LEVEL": "DEBUG"}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "pong\n"), done.stderr


def test_a_token_that_cannot_be_read_is_a_fault_of_the_configuration(cluster: FakeCluster) -> None:
    cluster.token_path.unlink()

    done = run(cluster, "status")

    assert done.exit_code == 2
    assert done.stderr == f"{cluster.token_path}: cannot read the token: No such file or directory\n"


def test_faults_of_a_configuration_are_told_one_a_line(cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "organism.yaml"
    path.write_text(
        "seedcore:\n  organism:\n    organ_types:\n"
        "      - id: one\n        type: Test\n        agent: json:loads\n        agent_count: -3\n        colour: red\n"
    )

    done = run(cluster, "config", "check", "--config", str(path))

    assert done.exit_code == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}:7:")
    assert "agent_count" in lines[0]
    assert lines[1].startswith(f"{path}:8:9: ")
    assert "colour" in lines[1]


def test_what_config_show_prints_is_the_same_organism(cluster: FakeCluster, tmp_path: Path) -> None:
    checked = run(cluster, "config", "check")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "valid, 3 organs" in checked.stdout
    fingerprint = checked.stdout.split()[-1]

    for option in ((), ("--json",)):
        shown = run(cluster, "config", "show", *option)
        assert (shown.exit_code, shown.stderr) == (0, "")
        copy = tmp_path / "copy.yaml"
        copy.write_text(shown.stdout)
        again = run(cluster, "config", "check", "--config", str(copy))
        assert again.exit_code == 0, again.stderr
        assert again.stdout.split()[-1] == fingerprint


def test_nodes_can_be_expected_by_name(cluster: FakeCluster) -> None:
    assert run(cluster, "status", "--expected-node", "head").exit_code == 0
    done = run(cluster, "status", "--json", "--expected-node", "head", "--expected-node", "worker")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["reason"], report["nodes"]["missing"]) == (1, "nodes_missing", ["worker"])


def test_the_organism_of_the_settings_can_be_expected(cluster: FakeCluster) -> None:
    cluster.body["fingerprint"] = run(cluster, "config", "check").stdout.split()[-1]
    assert run(cluster, "status", "--expected-fingerprint", "config").exit_code == 0
    assert run(cluster, "status", "--expected-fingerprint", cluster.body["fingerprint"]).exit_code == 0

    cluster.body["fingerprint"] = "of-another-organism"
    done = run(cluster, "status", "--json", "--expected-fingerprint", "config")
    assert (done.exit_code, json.loads(done.stdout)["reason"]) == (1, "wrong_configuration")


def test_a_healthy_status_is_one_document_or_one_readable_block(cluster: FakeCluster) -> None:
    organ = {"organ_id": "thinker", "organ_type": "Cognitive", "status": "ready", "agent_count": 2, "ready_agents": 2}
    organ |= {"in_flight": 3, "queued": 5, "replicas": [], "required": True, "min_ready_agents": 1}
    cluster.body["organs"] = [organ]

    done = run(cluster, "status", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["healthy"], report["status"], report["reason"]) == (True, "healthy", "ready")
    assert report["nodes"] == {"alive": 1, "expected": 1, "missing": [], "names": ["head"], "unexpected": []}

    block = run(cluster, "status")
    assert (block.exit_code, block.stderr) == (0, "")
    lines = block.stdout.splitlines()
    assert lines[0] == "healthy  ready: 1 of 1 organs ready"
    assert "release      1.0+abc" in lines
    assert any(line.startswith("since        2026-01-01T00:00:00.000+00:00 (") for line in lines)
    assert "nodes        1 of 1 alive (head)" in lines

    cluster.body["nodes"] = {"list": [{"node_id": "1", "node_name": "head", "draining": True}]}
    assert "nodes        1 of 1 alive (head), draining: head" in run(cluster, "status").stdout.splitlines()
    assert any(line.split() == ["thinker", "Cognitive", "ready", "2/2", "0/0", "3", "5"] for line in lines)
    assert all(line == line.rstrip() for line in lines)


def absent(cluster: FakeCluster) -> None:
    cluster.coordinator = None


def failed(cluster: FakeCluster) -> None:
    assert cluster.coordinator is not None
    cause = {"creation_task_failure_context": {"formatted_exception_string": TRACEBACK}}
    cluster.coordinator |= {"state": "DEAD", "death_cause": cause}


def starting(cluster: FakeCluster) -> None:
    cluster.initializing("2 of 3 organs ready")


def degraded(cluster: FakeCluster) -> None:
    cluster.body |= {"degraded": True, "reason": "degraded", "message": "one agent is missing"}


def zombie(cluster: FakeCluster) -> None:
    cluster.nodes = [{**cluster.nodes[0], "state": "DEAD"}, {"node_id": "b", "node_name": "head", "state": "ALIVE"}]


def refused(cluster: FakeCluster) -> None:
    cluster.token_path.write_text("another-token")


def unreachable(cluster: FakeCluster) -> None:
    cluster.dashboard_code = 500


@pytest.mark.parametrize(
    ("make_it", "arguments", "code", "reason"),
    [
        (absent, [], 3, "absent"),
        (failed, [], 1, "init_failed"),
        (starting, [], 5, "starting"),
        (degraded, [], 1, "degraded"),
        (degraded, ["--allow-degraded"], 0, "degraded"),
        (zombie, [], 1, "not_responding"),
        (refused, [], 4, "unauthorized"),
        (unreachable, [], 4, "unreachable"),
        (lambda _: None, ["--expected-release", "2.0"], 1, "wrong_release"),
        (lambda _: None, ["--expected-nodes", "2"], 1, "nodes_missing"),
        (lambda _: None, ["--expected-release", "1.0+abc", "--expected-nodes", "1"], 0, "ready"),
    ],
)
def test_the_exit_code_of_status_says_how_it_is(
    cluster: FakeCluster, make_it: Any, arguments: list[str], code: int, reason: str
) -> None:
    make_it(cluster)

    for form in ([], ["--json"], ["--wait", "--timeout", "0.5"] if code in {0, 1} else []):
        done = run(cluster, "status", *form, *arguments)
        assert done.exit_code == code, done.output
        assert reason in done.stdout
    report = json.loads(run(cluster, "status", "--json", *arguments).stdout)
    assert report["reason"] == reason


def test_a_red_status_shows_the_last_line_of_the_traceback(cluster: FakeCluster) -> None:
    failed(cluster)

    done = run(cluster, "status")

    assert done.stdout.splitlines()[-1] == "evidence     ValueError: disk is full"
    assert TRACEBACK in json.loads(run(cluster, "status", "--json").stdout)["evidence"]["traceback"]


def test_a_message_cannot_write_on_the_terminal(cluster: FakeCluster) -> None:
    cluster.body["message"] = "all\x1b[2J\rfine\nreally"

    done = run(cluster, "status")

    assert done.stdout.splitlines()[0] == "healthy  ready: all?[2J fine really"


def test_a_wait_tells_the_stages_on_stderr_and_why_it_ended(cluster: FakeCluster) -> None:
    starting(cluster)

    done = run(cluster, "status", "--json", "--wait", "--timeout", "1")

    assert done.exit_code == 5
    assert json.loads(done.stdout)["message"] == "still initializing: 2 of 3 organs ready"
    assert done.stderr == "initializing: 2 of 3 organs ready\n"


def test_a_wait_ends_when_it_is_healthy(cluster: FakeCluster) -> None:
    starting(cluster)
    process = spawn(cluster, "status", "--wait", "--timeout", "60", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: cluster.seen, what="the first probe")
    assert cluster.coordinator is not None
    cluster.coordinator["state"] = "ALIVE"
    cluster.code = 200
    cluster.body |= {"status": "healthy", "reason": "ready", "message": "all there"}

    out, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert out.startswith("healthy  ready: all there\n")


def test_submit_hands_the_task_over_and_prints_the_answer(cluster: FakeCluster) -> None:
    done = run(cluster, "submit", "add", "--params", '{"a": 1}', "--domain", "maths", "--timeout", "7")

    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"success": True, "result": 42, "task_type": "add"}
    ((method, path, body, headers),) = cluster.seen
    assert (method, path, headers["Authorization"]) == ("POST", "/coordinator/tasks", f"Bearer {TOKEN}")
    assert body == {"type": "add", "params": {"a": 1}, "domain": "maths", "timeout_s": 7.0}


def test_submit_reads_params_from_standard_input(cluster: FakeCluster) -> None:
    done = run(cluster, "submit", "add", "--params", "-", text='\ufeff{"a": "ö"}')

    assert done.exit_code == 0
    assert cluster.seen[0][2] == {"type": "add", "params": {"a": "ö"}}


def test_submit_fails_where_the_work_failed(cluster: FakeCluster) -> None:
    cluster.answer = (200, {"success": False, "error": "no such file", "error_type": "OSError", "task_type": "add"})

    done = run(cluster, "submit", "add")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] == "no such file"
    assert done.stderr == "OSError: no such file\n"


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (refused, "unauthorized: "),
        (lambda cluster: setattr(cluster, "answer", (500, {"detail": "oops"})), "not_responding: "),
        (lambda cluster: setattr(cluster, "answer", (200, ["list"])), "not_responding: "),
    ],
)
def test_submit_says_when_there_is_nobody_to_ask(cluster: FakeCluster, make_it: Any, words: str) -> None:
    make_it(cluster)

    done = run(cluster, "submit", "add")

    assert done.exit_code == 4
    assert done.stdout == ""
    assert done.stderr.startswith(words)


def test_submit_and_ping_name_the_reason_why_nobody_answers(cluster: FakeCluster) -> None:
    absent(cluster)
    free = {"SEEDCORE_HTTP_PORT": "1"}

    submitted = run(cluster, "submit", "add", **free)
    assert submitted.exit_code == 4
    assert submitted.stderr == "absent: there is no Coordinator; `seedcore bootstrap` starts one\n"

    pinged = run(cluster, "ping", **free)
    assert (pinged.exit_code, pinged.stdout) == (3, "")
    assert pinged.stderr == submitted.stderr


def test_ping_answers_pong(cluster: FakeCluster) -> None:
    done = run(cluster, "ping")

    assert (done.exit_code, done.stdout) == (0, "pong\n")
    assert "pid 4000001" in done.stderr


def test_ping_does_not_wait_for_ever(cluster: FakeCluster) -> None:
    cluster.hang.set()

    done = run(cluster, "ping", "--timeout", "0.2")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("not_responding: ")


def test_ping_tells_another_program_from_one_that_cannot_be_asked(cluster: FakeCluster) -> None:
    cluster.body = {"detail": "not ours"}
    done = run(cluster, "ping")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("not_responding: ")

    refused(cluster)
    done = run(cluster, "ping")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("unauthorized: ")


def test_an_error_of_this_host_says_nothing_about_the_cluster(cluster: FakeCluster) -> None:
    with Path("/dev/full").open("w") as full:
        process = spawn(cluster, "status", "--json", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 4
    assert "No space left on device" in err


def test_a_proxy_of_the_environment_is_not_asked(cluster: FakeCluster) -> None:
    dead = "http://127.0.0.1:1"

    for arguments in (["status"], ["ping"], ["submit", "add"]):
        assert run(cluster, *arguments, http_proxy=dead, HTTP_PROXY=dead, ALL_PROXY=dead).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["bootstrap", "--help"],
        ["--version"],
        ["status"],
        ["top", "--count", "1"],
        ["completion", "zsh"],
        ["submit", "echo"],
        ["config", "check"],
    ],
)
def test_what_only_looks_never_imports_ray(cluster: FakeCluster, arguments: list[str]) -> None:
    argv, env = command(cluster, *arguments)

    done = subprocess.run(
        [argv[0], "-X", "importtime", *argv[1:]], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "seedcore" in imported
    assert "ray" not in imported
    if arguments[0] not in {"config", "submit"}:
        assert not imported & {"pydantic", "fastapi", "yaml", "asyncio"}


def test_ctrl_c_ends_with_one_clean_word(cluster: FakeCluster) -> None:
    absent(cluster)
    process = spawn(cluster, "status", "--wait", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: len(cluster.seen) > 3, what="some probes")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert err.split() == ["unhealthy:", "there", "is", "no", "Coordinator", "interrupted"]


def test_a_reader_that_goes_away_is_no_reason_to_complain(cluster: FakeCluster) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = spawn(cluster, "status", "--json", stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)

    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (141, "")


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(
    cluster: FakeCluster, environ: dict[str, str], *, coloured: bool
) -> None:
    argv, env = command(cluster, "status", **{"TERM": "xterm", **environ})
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(argv, env=env, stdout=theirs, stderr=theirs, check=False, timeout=30)
        text = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == 0
    assert ("\x1b[" in text) is coloured


def test_the_version_is_that_of_the_package(cluster: FakeCluster) -> None:
    done = run(cluster, "--version")

    assert done.exit_code == 0
    assert done.stdout.startswith("seedcore ")
