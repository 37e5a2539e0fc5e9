"""Test what a user sees: output formats of the status, --watch, top, help and completion."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from seedcore.cli.app import cli
from seedcore.cli.render import cut
from tests.support.command_line import command, run, spawn
from tests.support.fake_cluster import NODE, FakeCluster
from tests.support.waiting import eventually

ORGAN: dict[str, Any] = {
    "organ_id": "thinker", "organ_type": "Cognitive", "status": "degraded", "agent_count": 4, "ready_agents": 2,
    "in_flight": 3, "queued": 5, "required": False, "min_ready_agents": 1, "replicas": [],
}  # fmt: skip
ACTIVITY: dict[str, Any] = {
    "now": 1_000_100.0,
    "interval_s": 2.0,
    "samples": {
        "at": [1_000_096.0, 1_000_098.0], "done_per_s": [0.0, 12.0], "failed_per_s": [0.0, 0.5],
        "p50_s": [None, 0.0041], "p95_s": [None, 1.25], "in_flight": [0, 4], "queued": [0, 2],
    },
    "organs": [
        {"organ_id": "thinker", "done": 25, "failed": 1, "per_s": 6.5, "failed_per_s": 0.2, "mean_s": 0.0052}
    ],
    "failures": [
        {
            "kind": "task", "error": "no \x1b[2Jsuch file", "task_type": "read", "organ_id": "thinker",
            "agent_id": "thinker_agent_0", "error_type": "OSError", "first_at": 1.0, "at": 1_000_088.0, "count": 3,
        }
    ],
}  # fmt: skip


@pytest.fixture
def cluster(cluster: FakeCluster) -> FakeCluster:
    cluster.body["organs"] = [ORGAN]
    cluster.activity = ACTIVITY
    return cluster


class Terminal:
    """A command on a terminal of 100 columns."""

    def __init__(self, cluster: FakeCluster, *arguments: str, **environ: str) -> None:
        argv, env = command(cluster, *arguments)
        self.ours, theirs = pty.openpty()
        # A new pty has no size.
        subprocess.run(["stty", "rows", "40", "cols", "100"], stdin=theirs, check=True)
        self.process = subprocess.Popen(
            argv, env={**env, "TERM": "xterm", **environ}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.text = ""

    def until(self, words: str) -> None:
        def seen() -> bool:
            self.text += os.read(self.ours, 65536).decode(errors="replace")
            return words in self.text

        eventually(seen, what=words)

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.ours)


def test_one_document_in_the_form_that_is_asked_for(cluster: FakeCluster) -> None:
    as_json = json.loads(run(cluster, "status", "-o", "json").stdout)
    as_yaml = yaml.safe_load(run(cluster, "status", "-o", "yaml").stdout)

    assert as_json["coordinator"].pop("snapshot_at")
    assert as_yaml["coordinator"].pop("snapshot_at")
    assert as_json == as_yaml
    assert run(cluster, "status", "-o", "table").stdout == run(cluster, "status").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "-o", "xml"], ["xml", "table", "json", "yaml"]),
        (["status", "--json", "-o", "yaml"], ["--json and --output yaml exclude each other"]),
        (["status", "--interval", "3"], ["--interval requires --watch"]),
        (["status", "--watch", "--wait"], ["--watch and --wait exclude each other"]),
        (["top", "--interval", "0"], ["--interval", "above 0"]),
        (["top", "--count", "0"], ["--count", "x>=1"]),
        (["completion", "tcsh"], ["tcsh", "bash", "zsh", "fish"]),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(
    cluster: FakeCluster, arguments: list[str], words: list[str]
) -> None:
    done = run(cluster, *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    for word in words:
        assert word in done.stderr
    assert cluster.seen == []


def test_the_table_says_where_processes_are_if_there_is_more_than_one_node(cluster: FakeCluster) -> None:
    nodes = [{"node_id": NODE, "node_name": "head"}, {"node_id": "b", "node_name": "worker-1"}]
    replicas = [{"replica": number, "state": "starting", "node_id": "b", "ready_agents": 0} for number in (0, 1)]
    cluster.body |= {"nodes": {"list": nodes}, "organs": [{**ORGAN, "replicas": replicas}]}

    lines = run(cluster, "status").stdout.splitlines()

    assert lines[-2].split() == ["ORGAN", "TYPE", "STATUS", "AGENTS", "REPLICAS", "IN", "FLIGHT", "QUEUED", "NODES"]
    assert lines[-1].split()[-2:] == ["worker-1", "x2"]


def test_a_watch_on_a_terminal_draws_anew_and_q_leaves(cluster: FakeCluster) -> None:
    terminal = Terminal(cluster, "status", "--watch", "--interval", "0.1")
    terminal.until("1 of 1 organs ready")
    cluster.body |= {"degraded": True, "reason": "degraded", "message": "an agent is missing"}
    terminal.until("an agent is missing")
    terminal.type("q")
    terminal.until("\x1b[?1049l")

    assert terminal.end() == 1, "the exit code is that of the last status"
    assert "q ends" in terminal.text
    assert terminal.text.startswith("\x1b[?1049h")


def test_a_wait_on_a_terminal_shows_how_far_it_is(cluster: FakeCluster) -> None:
    cluster.initializing("1 of 2 organs ready; starting: thinker")
    terminal = Terminal(cluster, "status", "--wait", "--timeout", "60")
    terminal.until("[##########..........] ")
    terminal.until(" of 1 min 0 s  initializing: 1 of 2 organs ready; starting: thinker")
    assert cluster.coordinator is not None
    cluster.coordinator["state"], cluster.code = "ALIVE", 200
    cluster.body |= {"status": "healthy", "reason": "ready", "message": "all there"}
    terminal.until("all there")

    assert terminal.end() == 0


def test_a_watch_elsewhere_prints_what_changes(cluster: FakeCluster) -> None:
    process = spawn(cluster, "status", "--watch", "--interval", "0.05", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    eventually(lambda: len(cluster.seen) > 20, what="some looks")
    cluster.body |= {"message": "something else"}
    seen = len(cluster.seen)
    eventually(lambda: len(cluster.seen) > seen + 10, what="more looks")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert out.count("healthy  ready: 1 of 1 organs ready") == 1
    assert out.count("healthy  ready: something else") == 1


def test_a_watch_for_a_program_is_a_line_for_each_look(cluster: FakeCluster) -> None:
    process = spawn(cluster, "status", "--watch", "-o", "json", "--interval", "0.05", stdout=subprocess.PIPE)
    assert process.stdout is not None
    reports = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert {report["healthy"] for report in reports} == {True}


def test_the_status_tells_how_many_durable_tasks_wait_and_for_whom(cluster: FakeCluster) -> None:
    assert "inbox" not in run(cluster, "status").stdout
    cluster.body["inbox"] = {"is_open": True, "epoch": 3, "tasks": {"ready": 4, "later": 1, "leased": 2, "done": 9}}
    assert "\ninbox        5 tasks wait, 2 run\n" in run(cluster, "status").stdout
    cluster.body["inbox"]["tasks"] |= {"parked": 1, "failed": 2}
    assert "2 run, 3 wait for your decision: seedcore tasks --parked\n" in run(cluster, "status").stdout


def test_top_shows_rates_durations_queues_and_failures(cluster: FakeCluster) -> None:
    done = run(cluster, "top", "--count", "1")

    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "healthy  ready: 1 of 1 organs ready"
    assert "1.0+abc" in lines[1]
    assert "12.0/s done, 0.5 failed, median 4.1 ms, 95 % 1.2 s, 4 in flight, 2 queued" in done.stdout
    (organ,) = [line.split() for line in lines if line.startswith("thinker")]
    assert organ == ["thinker", "Cognitive", "degraded", "2/4", "0/0", "3", "5", "6.5", "0.2", "5.2", "ms", "25", "1"]
    assert "3 times, last 12 s ago  read thinker_agent_0  OSError: no ?[2Jsuch file" in done.stdout


def test_top_shows_what_was_there_when_the_coordinator_is_gone(cluster: FakeCluster) -> None:
    terminal = Terminal(cluster, "top", "--interval", "0.1")
    terminal.until("thinker")
    cluster.coordinator = None
    terminal.until("last known state")
    assert "absent" in terminal.text
    terminal.type("q")
    terminal.until("\x1b[?1049l")
    assert terminal.end() == 0


@pytest.mark.parametrize(("environ", "colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_drawn_screen_heeds_no_color(cluster: FakeCluster, environ: dict[str, str], *, colour: bool) -> None:
    terminal = Terminal(cluster, "top", "--interval", "0.1", **environ)
    terminal.until("LAST FAILURES")
    terminal.type("q")
    terminal.until("\x1b[?1049l")

    assert terminal.end() == 0
    assert bool(re.search(r"\x1b\[[0-9;]*m", terminal.text)) is colour


def test_top_for_a_program(cluster: FakeCluster) -> None:
    done = run(cluster, "top", "--json", "--count", "2", "--interval", "0.01")

    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["activity"] == second["activity"] == ACTIVITY
    assert first["status"]["healthy"] is True


def test_top_without_a_coordinator_is_no_crash(cluster: FakeCluster) -> None:
    cluster.coordinator, cluster.activity = None, None

    done = run(cluster, "top", "--count", "1")

    assert done.exit_code == 0
    assert done.stdout.startswith("unhealthy  absent: there is no Coordinator")


def test_a_line_is_cut_without_breaking_its_colours() -> None:
    line = click.style("green", fg="green") + " and plain"

    assert click.unstyle(cut(line, 7)) == "green a"
    assert cut(line, 7).startswith("\x1b[32mgreen\x1b[0m")


def commands(command_of: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command_of
    if isinstance(command_of, click.Group):
        for name, child in command_of.commands.items():
            yield from commands(child, (*path, name))


@pytest.mark.parametrize(
    ("path", "one"),
    list(commands(cli)),
    ids=lambda value: " ".join(value or ["seedcore"]) if isinstance(value, tuple) else "",
)
def test_every_help_has_examples_that_work_and_exit_codes(
    cluster: FakeCluster, path: tuple[str, ...], one: click.Command
) -> None:
    text = run(cluster, *path, "--help").stdout

    assert re.search(r"\n  Exit codes:\n(    \d  \S.*\n)+$", text), text
    shown = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert shown, text
    assert max(map(len, text.splitlines())) <= 100
    for line in shown:
        words = shlex.split(re.sub(r"^.*?seedcore |[<>|)].*$|   .*$", "", line.strip()), comments=True)
        chosen: click.Command = cli
        while words and isinstance(chosen, click.Group) and words[0] in chosen.commands:
            chosen = chosen.commands[words.pop(0)]
        if words == ["COMMAND", "--help"]:
            continue
        context = click.Context(chosen, info_name=" ".join(path), help_option_names=["-h", "--help"])
        with context:
            # The parser rejects unknown options.
            chosen.make_parser(context).parse_args(words)


def completions(cluster: FakeCluster, shell: str, *words: str) -> str:
    argv, env = command(cluster)
    env |= {"_SEEDCORE_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shells_complete_commands_options_and_task_types(cluster: FakeCluster) -> None:
    cluster.organism = [{"organ_id": "thinker", "description": "Thinks", "task_types": ["summarize", "keywords"]}]

    for shell in ("bash", "zsh"):
        assert "status" in completions(cluster, shell, "seedcore", "sta")
        assert "--expected-release" in completions(cluster, shell, "seedcore", "status", "--exp")
        types = completions(cluster, shell, "seedcore", "submit", "sum")
        assert "summarize" in types
        assert "keywords" not in types
    cluster.hang.set()
    assert completions(cluster, "bash", "seedcore", "submit", "sum").strip() == ""


def test_bash_takes_the_script(cluster: FakeCluster, tmp_path: Path) -> None:
    program = tmp_path / "seedcore"
    argv, env = command(cluster)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(seedcore completion bash)"; COMP_WORDS=(seedcore conf); COMP_CWORD=1; '
        '_seedcore_completion seedcore; echo "${COMPREPLY[@]}"'
    )
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-c", script],
        env={**env, "PATH": f"{tmp_path}:{env['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("config", "")
    for shell in ("zsh", "fish"):
        assert "_SEEDCORE_COMPLETE" in run(cluster, "completion", shell).stdout
