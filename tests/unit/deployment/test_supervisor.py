"""Test the supervisor: its decisions as pure functions, its kills on real processes, its loop against real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seedcore.core.backoff import Backoff
from seedcore.core.errors import ConfigError
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.deployment import desired_state
from seedcore.deployment.desired_state import Desired, read_desired, write_desired
from seedcore.deployment.journal import Journal
from seedcore.deployment.sd_notify import notify, watchdog_s
from seedcore.deployment.supervision_policy import Action, Judge, Policy
from seedcore.deployment.supervisor import Supervisor
from seedcore.status.host_processes import kill_actor, start_ticks
from seedcore.status.report import Report
from tests.support.fake_cluster import NODE, FakeCluster
from tests.support.waiting import eventually

POLICY = Policy()
SPEC = OrganismSpec(
    organs=(OrganSpec(id="a", type="A", agent="agents:A", task_types=("add",), domains={"d": ("mul",)}),),
    source="organism.yaml",
)


def report(reason: str, status: str = "unhealthy", **own: Any) -> Report:
    evidence = {"zombie": True} if own.pop("zombie", False) else {}
    coordinator = {"actor_id": "a1", "pid": 100, "state": "ALIVE", **own}
    return Report(
        healthy=status == "healthy",
        status=status,
        reason=reason,
        message="m",
        coordinator=coordinator,
        evidence=evidence,
    )


HUNG = report("not_responding")
ABSENT = report("absent")
READY = report("ready", "healthy")


class Clock:
    """Feeds one report to a judge every two seconds."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.now = 1000.0

    def feed(self, what: Report, *, seconds: float, wanted: bool = True, step: float = 2.0) -> Action | None:
        """Feed reports for some seconds, or until the judge decides to act."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            action = self.judge.observe(what, now=self.now, wanted=wanted)
            if action.remedy is not None:
                return action
        return None


@pytest.fixture
def clock() -> Clock:
    return Clock(Judge(POLICY))


@pytest.mark.parametrize(
    "calm",
    [
        READY,
        report("degraded", "healthy"),
        report("unschedulable", "initializing", pid=0),
        report("organs_down"),
        # The organs of the release before do the tasks.
        report("init_failed", organism_initialized=True),
        report("wrong_release"),
        report("nodes_missing"),
        report("unreachable"),
        report("unauthorized"),
        report("state_damaged"),
        report("disk_full"),
        report("unknown"),
    ],
    ids=lambda calm: calm.reason,
)
def test_what_is_well_or_not_ours_is_left_alone_for_ever(clock: Clock, calm: Report) -> None:
    assert clock.feed(calm, seconds=100_000) is None


def test_a_coordinator_that_hangs_is_killed_after_the_timeout_and_not_before(clock: Clock) -> None:
    began = clock.now

    action = clock.feed(HUNG, seconds=60)

    assert action is not None
    assert action.remedy == "kill"
    assert action.why == "not_responding for 16 s: m"
    assert clock.now - began - 2 >= POLICY.hang_timeout_s


def test_one_answer_in_between_starts_the_count_anew(clock: Clock) -> None:
    for _ in range(100):
        assert clock.feed(HUNG, seconds=POLICY.hang_timeout_s - 2) is None
        assert clock.feed(READY, seconds=2) is None


def test_another_process_is_another_matter(clock: Clock) -> None:
    for pid in range(100, 200):
        assert clock.feed(report("not_responding", pid=pid), seconds=POLICY.hang_timeout_s) is None


def test_few_probes_prove_nothing_however_far_apart(clock: Clock) -> None:
    # The machine was suspended: the clock has advanced without any probe.
    for _ in range(100):
        assert clock.feed(HUNG, seconds=1, step=POLICY.gap_s + 1) is None


def test_an_initialization_that_makes_progress_is_never_touched(clock: Clock) -> None:
    for ready in range(100):
        step = report("starting", "initializing", state="PENDING_CREATION", stage=f"{ready} of 100", progress=ready)
        assert clock.feed(step, seconds=POLICY.init_stall_timeout_s - 2) is None


def test_an_initialization_that_stands_still_is_killed_in_the_end(clock: Clock) -> None:
    began = clock.now

    action = clock.feed(report("starting", "initializing", stage="2 of 3"), seconds=10_000)

    assert action is not None
    assert action.remedy == "kill"
    assert clock.now - began >= POLICY.init_stall_timeout_s


def test_an_organism_that_may_take_long_is_given_its_time(clock: Clock) -> None:
    slow = report("starting", "initializing", stage="0 of 1", start_timeout_s=3600.0)

    assert clock.feed(slow, seconds=7200) is None
    assert clock.feed(slow, seconds=10) is not None


@pytest.mark.parametrize("gone", [ABSENT, report("init_failed", state="DEAD"), report("not_responding", zombie=True)])
def test_what_is_gone_is_started_again(clock: Clock, gone: Report) -> None:
    action = clock.feed(gone, seconds=30)

    assert action is not None
    assert action.remedy == "bootstrap"


def test_a_moment_of_absence_is_not_acted_on(clock: Clock) -> None:
    assert clock.feed(ABSENT, seconds=POLICY.absent_timeout_s) is None
    assert clock.feed(report("starting", "initializing"), seconds=10) is None


@pytest.mark.parametrize("trouble", [HUNG, ABSENT, report("init_failed")], ids=lambda each: each.reason)
def test_nothing_is_done_that_nobody_wants(clock: Clock, trouble: Report) -> None:
    assert clock.feed(trouble, seconds=10_000, wanted=False) is None
    # A later desired state does not count the time before it.
    assert clock.feed(trouble, seconds=POLICY.absent_timeout_s) is None


def test_actions_come_ever_more_slowly_up_to_a_bound(clock: Clock) -> None:
    pauses = []
    for _ in range(12):
        began = clock.now
        assert clock.feed(ABSENT, seconds=10_000) is not None
        clock.judge.acted(now=clock.now)
        pauses.append(clock.now - began)

    assert pauses == sorted(pauses)
    assert pauses[0] <= 10
    longest = POLICY.backoff.steps[-1]
    assert longest <= pauses[-1] <= longest + POLICY.interval_s


def test_lasting_health_makes_earlier_trouble_forgotten(clock: Clock) -> None:
    for _ in range(10):
        clock.feed(ABSENT, seconds=10_000)
        clock.judge.acted(now=clock.now)
    assert clock.judge.actions == 10

    clock.feed(READY, seconds=POLICY.backoff.reset_after_s - 2)
    clock.feed(HUNG, seconds=2)
    assert clock.judge.actions == 10

    clock.feed(READY, seconds=POLICY.backoff.reset_after_s + 4)
    assert clock.judge.actions == 0


def test_what_cannot_be_killed_is_left_to_bootstrap(clock: Clock) -> None:
    assert clock.feed(HUNG, seconds=60) == Action("kill", "not_responding for 16 s: m")
    clock.judge.cannot_kill()
    clock.judge.acted(now=clock.now)

    action = clock.feed(HUNG, seconds=60)
    assert action is not None
    assert action.remedy == "replace"

    clock.judge.acted(now=clock.now)
    other = clock.feed(report("not_responding", pid=101), seconds=60)
    assert other is not None
    assert other.remedy == "kill"


def silent(how: str, **own: Any) -> Report:
    return replace(report("not_responding", **own), evidence={"silence": how})


ELSEWHERE = ("nobody_listens", "another_answers")


@pytest.mark.parametrize(
    ("seen", "remedy"),
    [
        (silent("no_answer"), "kill"),
        *((silent(how), "replace") for how in ELSEWHERE),
        (replace(report("unreachable"), evidence={"silence": "cannot_ask", "untrusted": False}), None),
        (replace(report("unreachable"), evidence={"silence": "cannot_ask", "untrusted": True}), None),
        (report("unschedulable", "initializing", stage="0 of 1 organs ready", start_timeout_s=60.0), None),
    ],
    ids=["hangs", "nobody listens", "another answers", "cannot read", "does not believe", "an organ has no place"],
)
def test_each_kind_of_silence_has_its_own_answer(clock: Clock, seen: Report, remedy: str | None) -> None:
    action = clock.feed(seen, seconds=10_000)

    assert (action.remedy if action else None) == remedy


@pytest.mark.parametrize(
    "seen", [HUNG, report("starting", "initializing", stage="0 of 1 organs ready")], ids=["hung", "stalled"]
)
def test_what_two_kills_did_not_mend_is_replaced_with_the_present_settings(clock: Clock, seen: Report) -> None:
    remedies: list[str | None] = []
    for pid in range(100, 107):
        # Each process of the same actor is new and fails in the same way.
        action = clock.feed(replace(seen, coordinator={**seen.coordinator, "pid": pid}), seconds=10_000)
        assert action is not None
        remedies.append(action.remedy)
        clock.judge.acted(now=clock.now)

    assert remedies == ["kill", "kill", "replace", "kill", "kill", "replace", "kill"]


def test_health_makes_kills_forgotten(clock: Clock) -> None:
    for _ in range(3):
        action = clock.feed(HUNG, seconds=100)
        assert action is not None
        assert action.remedy == "kill"
        clock.judge.acted(now=clock.now)
        clock.feed(READY, seconds=POLICY.backoff.reset_after_s + 4)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "deep" / "state")


def test_an_organism_from_before_the_layers_runs_with_the_agents_of_the_reader(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = replace(SPEC.organs[0], agent="mine.agents:Reader", python="")
    write_desired(settings, "running", spec=replace(SPEC, organs=(agents,)))
    monkeypatch.setattr(desired_state, "agents_python", lambda: "/a/2/bin/python")

    def python() -> list[str]:
        wanted = read_desired(settings)
        assert wanted is not None
        assert wanted.spec is not None
        return [organ.python for organ in wanted.spec.organs]

    assert python() == ["/a/2/bin/python"]
    write_desired(settings, "running", spec=replace(SPEC, organs=(replace(agents, python="/a/1/bin/python"),)))
    assert python() == ["/a/1/bin/python"], "that layer was wanted"


def test_what_is_wanted_is_remembered(settings: Settings) -> None:
    assert read_desired(settings) is None

    written = write_desired(settings, "running", spec=SPEC)

    assert read_desired(settings) == written
    assert written.config == str(Path.cwd() / "organism.yaml")
    assert (written.spec, written.fingerprint) == (SPEC, SPEC.fingerprint())
    path = settings.state_dir / "desired.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700
    assert set(json.loads(path.read_text())) == {"desired", "config", "fingerprint", "spec", "at"}

    write_desired(settings, "stopped")
    assert read_desired(settings) == Desired(desired="stopped", at=read_desired_at(settings))
    assert [entry.name for entry in settings.state_dir.iterdir()] == ["desired.json"]


def read_desired_at(settings: Settings) -> str:
    return str(json.loads((settings.state_dir / "desired.json").read_text())["at"])


def test_the_packaged_organism_is_wanted_of_whatever_release(settings: Settings) -> None:
    packaged = "/opt/releases/1.0/lib/python3.11/site-packages/seedcore/default_organism.yaml"

    assert write_desired(settings, "running", config=packaged).config is None
    assert write_desired(settings, "running", spec=replace(SPEC, source=packaged)).spec is None


def test_an_organism_of_a_release_with_other_keys_is_read_from_its_file(settings: Settings) -> None:
    write_desired(settings, "running", spec=SPEC)
    path = settings.state_dir / "desired.json"
    document = json.loads(path.read_text())
    document["spec"]["organs"][0]["not_yet_invented"] = 1
    path.write_text(json.dumps(document))

    found = read_desired(settings)

    assert found is not None
    assert (found.spec, found.config) == (None, str(Path.cwd() / "organism.yaml"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"desired": "maybe"}', '{"desired": "running", "config": 3}', "\xff"])
def test_what_cannot_be_understood_is_unknown(settings: Settings, text: str) -> None:
    settings.state_dir.mkdir(parents=True)
    (settings.state_dir / "desired.json").write_bytes(text.encode("latin-1"))

    assert read_desired(settings) is None


def test_a_state_directory_that_cannot_be_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"desired\.json: cannot be written: Not a directory"):
        write_desired(Settings(state_dir=tmp_path / "file" / "state"), "running")


# A process with a title like Ray's actors, whose parent names its node like a raylet.
_ACTOR = 'exec -a "$1" sleep 300'
_RAYLET = '(exec bash -c "$0" actor "$1") & echo $!; wait'


@contextmanager
def actor(title: str = "ray::Coordinator", node: str = NODE) -> Iterator[int]:
    command = ["bash", "-c", _RAYLET, _ACTOR, title, f"--node_id={node}"]
    raylet = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert raylet.stdout is not None
    try:
        pid = int(raylet.stdout.readline())
        cmdline = Path(f"/proc/{pid}/cmdline")
        eventually(lambda: cmdline.read_bytes().startswith(title.encode()), what="the title")
        yield pid
    finally:
        os.killpg(raylet.pid, signal.SIGKILL)
        raylet.communicate()


def test_the_actors_process_is_killed_even_if_it_is_stopped() -> None:
    with actor() as pid:
        started = start_ticks(pid)
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: "T (stopped)" in Path(f"/proc/{pid}/status").read_text(), what="the stop")

        result = kill_actor(pid, node_id=NODE, started=started)

        assert (result.outcome, result.detail) == ("killed", "it was in state T")
        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end")
        assert kill_actor(pid, node_id=NODE, started=started).outcome == "gone"


def test_a_process_that_is_not_the_actors_lives() -> None:
    with actor() as pid:
        started = start_ticks(pid)
        assert started is not None
        doubts = [
            kill_actor(pid, node_id="beef", started=started),
            kill_actor(pid, node_id=None, started=started),
            kill_actor(pid, node_id=NODE, started=started + 1),
            kill_actor(pid, node_id=NODE, started=None),
            kill_actor(os.getpid(), node_id=NODE, started=start_ticks(os.getpid())),
        ]
        assert {doubt.outcome for doubt in doubts} == {"refused"}
        assert Path(f"/proc/{pid}").exists()
    with actor(title="python worker") as pid:
        assert kill_actor(pid, node_id=NODE, started=start_ticks(pid)).outcome == "refused"
        assert Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("pid", [None, 0, 1, -1, "7", 4_194_305])
def test_what_names_no_process_hurts_nobody(pid: Any) -> None:
    assert kill_actor(pid, node_id=NODE, started=1).outcome == "gone"
    assert start_ticks(pid) is None


def test_the_journal_keeps_within_its_bounds(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=2000)

    for number in range(200):
        journal.write("kill", number=number, why="x" * 50)

    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["supervisor.jsonl", "supervisor.jsonl.1"]
    assert all(path.stat().st_size <= 2000 for path in files)
    lines = [json.loads(line) for path in reversed(files) for line in path.read_text().splitlines()]
    numbers = [line["number"] for line in lines]
    assert numbers == list(range(200 - len(numbers), 200))
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Journal(tmp_path / "nowhere").write("kill")

    assert "cannot write the journal" in caplog.text


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool) -> None:
    name = f"@seedcore-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)

        assert notify("READY=1", "STATUS=two\nlines")

        assert listener.recv(4096) == b"READY=1\nSTATUS=two lines"
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_the_watchdog_is_fed_only_by_the_process_it_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_s() is None


# Fake `seedcore bootstrap`: records its call, then runs the code that the test has put into a file.
_BOOTSTRAP = """
import json, os, sys, time
here = sys.argv[1]
with open(here + "/calls", "a") as calls:
    calls.write(json.dumps({"argv": sys.argv[2:], "config": os.environ["SEEDCORE_CONFIG"], "pid": os.getpid()}) + "\\n")
exec(open(here + "/does").read())
"""
QUICK = Policy(
    interval_s=0.02,
    probe_timeout_s=0.2,
    hang_timeout_s=0.3,
    absent_timeout_s=0.05,
    backoff=Backoff((0.1, 0.2), reset_after_s=0.1),
    bootstrap_timeout_s=30,
)


class Running:
    """A supervisor that runs in a thread."""

    def __init__(self, cluster: FakeCluster, directory: Path, policy: Policy = QUICK) -> None:
        self.directory = directory
        self.cluster = cluster
        self.does('print(\'{"healthy": true, "action": "create"}\')')
        self.command = [sys.executable, "-c", _BOOTSTRAP, str(directory)]
        self.supervisor = Supervisor(cluster.settings, policy=policy, bootstrap_command=self.command)
        self.codes: list[int] = []
        self.thread = threading.Thread(target=lambda: self.codes.append(self.supervisor.run()))

    def does(self, code: str) -> None:
        (self.directory / "does").write_text(code)

    def calls(self) -> list[dict[str, Any]]:
        path = self.directory / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def journal(self) -> list[dict[str, Any]]:
        path = self.cluster.settings.state_dir / "supervisor.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.journal()]

    def probes(self) -> int:
        return sum(path == "/coordinator/status" for _, path, _, _ in self.cluster.seen)

    def watched(self, more: int = 20) -> None:
        """Wait until the supervisor has made ``more`` probes, so many chances to act."""
        before = self.probes()
        eventually(lambda: self.probes() >= before + more, what="probes")


@pytest.fixture
def running(cluster: FakeCluster, tmp_path: Path) -> Iterator[Running]:
    work = Running(cluster, tmp_path)
    work.thread.start()
    try:
        yield work
    finally:
        work.supervisor.stop()
        work.thread.join(10)
        assert work.codes == [0]


def test_an_absent_coordinator_is_started_with_what_was_wanted(cluster: FakeCluster, running: Running) -> None:
    row, cluster.coordinator = cluster.coordinator, None
    running.watched()
    assert running.calls() == []  # nobody has said what is wanted

    write_desired(cluster.settings, "running", config="/etc/organism.yaml")
    (first, *_) = eventually(running.calls, what="a bootstrap")
    cluster.coordinator = row
    eventually(lambda: "recovered" in running.events(), what="recovery")

    options = ["--json", "--keep-desired", "--wait-timeout", "30", "--config", "/etc/organism.yaml"]
    assert (first["argv"], first["config"]) == (options, "/etc/organism.yaml")
    entries = running.journal()
    assert [entry["event"] for entry in entries][:3] == ["started", "bootstrap", "bootstrap_ended"]
    assert entries[1]["why"].startswith("absent for ")
    assert (entries[2]["exit_code"], entries[2]["healthy"], entries[2]["action"]) == (0, True, "create")


def test_a_coordinator_that_is_not_where_the_settings_say_is_replaced_and_not_killed(
    cluster: FakeCluster, running: Running
) -> None:
    write_desired(cluster.settings, "running")
    body, cluster.body = cluster.body, {"detail": "another program"}

    (first, *_) = eventually(running.calls, what="a bootstrap")
    cluster.body = body
    eventually(lambda: "recovered" in running.events(), what="recovery")

    assert "--replace" in first["argv"]
    assert "kill" not in running.events()
    (entry,) = [entry for entry in running.journal() if entry["event"] == "bootstrap"][:1]
    assert entry["replace"] is True


def test_a_recovery_that_is_seen_before_the_bootstrap_has_ended_is_told(
    cluster: FakeCluster, running: Running, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    running.does(f"while os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('{{\"healthy\": true}}')")
    row, cluster.coordinator = cluster.coordinator, None
    write_desired(cluster.settings, "running", config="/etc/organism.yaml")
    eventually(running.calls, what="a bootstrap")

    cluster.coordinator = row
    running.watched()
    gate.unlink()

    eventually(lambda: "recovered" in running.events(), what="recovery")
    assert running.events() == ["started", "bootstrap", "bootstrap_ended", "recovered"]


def test_the_packaged_organism_is_not_replaced_by_the_environments(
    cluster: FakeCluster, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDCORE_CONFIG", "/somebody/elses.yaml")
    cluster.coordinator = None
    write_desired(cluster.settings, "running")

    (first, *_) = eventually(running.calls, what="a bootstrap")

    assert "--config" not in first["argv"]
    assert first["config"] == ""


def test_a_bootstrap_that_fails_is_tried_again_and_one_runs_at_a_time(cluster: FakeCluster, running: Running) -> None:
    cluster.coordinator = None
    running.does("import time; time.sleep(0.3); sys.exit(1)")
    write_desired(cluster.settings, "running")

    eventually(lambda: len(running.calls()) >= 3, what="three bootstraps")

    events = [event for event in running.events() if event != "started"]
    assert events[:4] == ["bootstrap", "bootstrap_ended", "bootstrap", "bootstrap_ended"]
    write_desired(cluster.settings, "stopped")
    eventually(lambda: running.events()[-1] == "bootstrap_ended", what="the end of the last one")
    calls = len(running.calls())
    running.watched()
    assert len(running.calls()) == calls


def test_a_bootstrap_of_somebody_else_is_not_disturbed(cluster: FakeCluster, running: Running) -> None:
    cluster.coordinator = None
    state = cluster.settings.state_dir
    state.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        ["flock", str(state / "bootstrap.lock"), "sh", "-c", "echo held; exec sleep 300"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        write_desired(cluster.settings, "running")
        running.watched()
        assert running.calls() == []
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
    eventually(running.calls, what="a bootstrap")


def test_a_hung_coordinator_is_killed_and_only_it(cluster: FakeCluster, running: Running) -> None:
    assert cluster.coordinator is not None
    write_desired(cluster.settings, "running")
    with actor() as bystander, actor() as pid:
        cluster.body["pid"] = cluster.coordinator["pid"] = pid
        running.watched(3)
        cluster.hang.set()

        eventually(lambda: "kill" in running.events(), what="the kill")

        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end")
        assert Path(f"/proc/{bystander}").exists()
    entry = next(entry for entry in running.journal() if entry["event"] == "kill")
    assert (entry["pid"], entry["outcome"]) == (pid, "killed")
    assert entry["why"].startswith("not_responding for ")
    assert "no answer in time" in entry["why"]


def test_a_hung_coordinator_without_a_process_here_is_left_to_bootstrap(cluster: FakeCluster, running: Running) -> None:
    cluster.hang.set()
    write_desired(cluster.settings, "running")

    eventually(running.calls, what="a bootstrap")

    kill = next(entry for entry in running.journal() if entry["event"] == "kill")
    assert kill["outcome"] == "gone"


def test_a_coordinator_that_ray_calls_alive_on_a_dead_node_is_left_to_bootstrap(
    cluster: FakeCluster, running: Running
) -> None:
    with actor() as pid:
        # The process that has this pid now is not the Coordinator, whose node is dead.
        assert cluster.coordinator is not None
        cluster.coordinator |= {"pid": pid, "node_id": "dead"}
        cluster.hang.set()
        write_desired(cluster.settings, "running")

        (entry, *_) = eventually(
            lambda: [entry for entry in running.journal() if entry["event"] == "bootstrap"], what="a bootstrap"
        )

        assert "ALIVE on a node that is dead" in entry["why"]
        assert "kill" not in running.events()
        assert Path(f"/proc/{pid}").exists()


def test_two_supervisors_do_not_work_on_one_deployment(cluster: FakeCluster, running: Running) -> None:
    running.watched(1)

    assert Supervisor(cluster.settings).run() == 1


def test_a_token_that_vanishes_is_lived_through(cluster: FakeCluster, running: Running) -> None:
    running.watched(1)
    cluster.token_path.rename(cluster.token_path.with_name("away"))
    asked = running.probes()
    eventually(lambda: not running.thread.is_alive() or running.supervisor._said[1:2] == ("unknown",), what="trouble")
    assert running.thread.is_alive()
    cluster.token_path.with_name("away").rename(cluster.token_path)
    eventually(lambda: running.probes() > asked + 3, what="probes again")


def service(cluster: FakeCluster, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "seedcore", "supervise", "--interval", "0.05"],
        env={**cluster.env(), "PYTHONPATH": str(Path(__file__).parents[3]), **environ},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def deployed(prefix: Path) -> Path:
    """Write a deployment with two layers whose interpreters import this library; the first one is active."""
    (prefix / "bin").mkdir(parents=True)
    for name in ("1", "2"):
        layer = prefix / "agents" / name
        venv.create(layer, symlinks=True)
        (layer / "release.json").write_text(json.dumps({"release": name}))
        (layer / "bin" / "seedcore").write_text(f"#!{layer}/bin/python\nfrom seedcore.cli import main\nmain()\n")
        (layer / "bin" / "seedcore").chmod(0o755)
    (prefix / "current").symlink_to("agents/1")
    command = prefix / "bin" / "seedcore"
    command.write_text(f'#!/bin/sh\nexec {prefix}/current/bin/seedcore "$@"\n')
    command.chmod(0o755)
    return command


def test_the_service_goes_on_as_the_release_that_becomes_active(cluster: FakeCluster, tmp_path: Path) -> None:
    prefix = tmp_path / "deployment"
    command = deployed(prefix)
    library = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [command, "supervise", "--interval", "0.05"], env={**cluster.env(), "PYTHONPATH": library},
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        eventually(lambda: cluster.seen, what="the first probe")
        (prefix / "next").symlink_to("agents/2")
        (prefix / "next").rename(prefix / "current")

        journal = cluster.settings.state_dir / "supervisor.jsonl"
        eventually(lambda: journal.read_text().count('"started"') == 2, what="the next one", timeout_s=60)
        assert f"{prefix}/agents/2/bin/python" in Path(f"/proc/{process.pid}/cmdline").read_text()
        seen = len(cluster.seen)
        eventually(lambda: len(cluster.seen) > seen + 3, what="probes of the next one")
        assert journal.read_text().count('"started"') == 2, "it is the active one now"
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"another release is active, it goes on: {command}" in err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_service_ends_at_once_even_while_a_probe_waits(cluster: FakeCluster, sent: signal.Signals) -> None:
    cluster.hang.set()
    process = service(cluster)
    eventually(lambda: cluster.seen, what="the first probe")
    began = time.monotonic()

    process.send_signal(sent)
    _, err = process.communicate(timeout=30)

    # Well below the nine seconds that the probe may take, with a margin for a busy machine.
    assert time.monotonic() - began < 3
    assert process.returncode == 0
    assert err.splitlines()[-1].endswith("stopped")
    assert "Traceback" not in err


def test_the_service_takes_a_bootstrap_of_its_own_with_it(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.coordinator = None
    write_desired(cluster.settings, "running")
    work = Running(cluster, tmp_path)
    work.does("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)")
    work.thread.start()
    (call, *_) = eventually(work.calls, what="a bootstrap")
    began = time.monotonic()

    work.supervisor.stop()
    work.thread.join(10)

    assert time.monotonic() - began < 3
    assert work.codes == [0]
    assert not Path(f"/proc/{call['pid']}").exists()


def test_a_bootstrap_that_does_not_end_is_ended(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.deployment.supervisor.BOOTSTRAP_MARGIN_S", 0.2)
    cluster.coordinator = None
    write_desired(cluster.settings, "running")
    work = Running(cluster, tmp_path, replace(QUICK, bootstrap_timeout_s=0.2))
    work.does("import time; time.sleep(300)")
    work.thread.start()

    eventually(lambda: "bootstrap_ended" in work.events(), what="the end of the bootstrap")

    work.supervisor.stop()
    work.thread.join(10)
    ended = next(entry for entry in work.journal() if entry["event"] == "bootstrap_ended")
    assert ended["exit_code"] == -signal.SIGKILL
    assert not any(Path(f"/proc/{call['pid']}").exists() for call in work.calls())


def test_the_service_reports_to_systemd(cluster: FakeCluster, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        process = service(cluster, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="500000")
        seen: list[str] = []

        def said(line: str) -> bool:
            seen.extend(listener.recv(4096).decode().splitlines())
            return line in seen

        try:
            eventually(lambda: said("STATUS=healthy, ready: 1 of 1 organs ready"), what="the status")
            assert seen[0] == "READY=1"
            eventually(lambda: said("WATCHDOG=1"), what="a sign of life")
            process.terminate()
            eventually(lambda: said("STOPPING=1"), what="the end")
        finally:
            process.kill()
            process.communicate()


def test_the_service_does_not_load_ray(cluster: FakeCluster) -> None:
    process = service(cluster)
    try:
        eventually(lambda: len(cluster.seen) > 10, what="some probes")
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "/ray/" not in maps
        assert "pydantic" not in maps
    finally:
        process.kill()
        process.communicate()
