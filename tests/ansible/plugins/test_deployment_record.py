from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.modules.deployment_record import definitions, unit_faults

from tests.ansible.plugins.test_actions import Play

MODULE = "deployment_record"
Run = Callable[..., dict[str, Any]]
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    prefix = tmp_path / "prefix"
    (prefix / "etc" / "conf.d").mkdir(parents=True)
    (prefix / "etc" / "token").write_text("a-secret-token-0123456789")
    (prefix / "etc" / "conf.d" / "ray.conf").write_text("[program:ray]\n")
    (prefix / "log").mkdir()
    (prefix / "current").symlink_to("releases/1")
    return prefix


@pytest.fixture
def recorded(deployment: Path, run: Run) -> Path:
    written = run(
        MODULE,
        path=str(deployment / ".applied"),
        state="present",
        fingerprint="f1",
        trees=[str(deployment / "etc")],
        paths=[str(deployment / "log"), str(deployment / "current"), str(deployment / "not_there")],
        user=ME,
    )
    assert written["changed"] is False
    return deployment


def compared(run: Run, deployment: Path, fingerprint: str = "f1") -> dict[str, Any]:
    return run(MODULE, path=str(deployment / ".applied"), fingerprint=fingerprint)


def test_without_a_record_nothing_is_recognized(run: Run, deployment: Path) -> None:
    assert compared(run, deployment)["made_from_the_same"] is False
    for broken in ("", "{", "[]", '{"format": 0, "fingerprint": "f1"}'):
        (deployment / ".applied").write_text(broken)
        assert compared(run, deployment)["made_from_the_same"] is False, broken


def test_what_is_as_it_was_is_recognized(run: Run, recorded: Path) -> None:
    # Python's caches, and the content of a directory that is recorded without it, are no differences.
    (recorded / "etc" / "__pycache__").mkdir()
    (recorded / "log" / "ray.log").write_text("more")

    found = compared(run, recorded)

    assert (found["made_from_the_same"], found["different"], found["changed"]) == (True, [], False)
    assert compared(run, recorded, "f2")["made_from_the_same"] is False
    assert (recorded / ".applied").stat().st_mode & 0o777 == 0o600, "for its owner only"
    assert "a-secret-token" not in (recorded / ".applied").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda prefix: (prefix / "etc" / "token").write_text("another"), "etc/token: its content differs"),
        (lambda prefix: (prefix / "etc" / "token").chmod(0o666), "mode 0666, wanted 0644"),
        (lambda prefix: (prefix / "etc" / "conf.d" / "ray.conf").unlink(), "etc/conf.d/ray.conf: absent, wanted file"),
        (lambda prefix: (prefix / "etc" / "conf.d" / "more.conf").write_text(""), "wanted absent"),
        (lambda prefix: (prefix / "log").chmod(0o777), "log: mode 0777, wanted 0755"),
        (lambda prefix: (prefix / "log").rmdir(), "log: absent, wanted directory"),
        (lambda prefix: (prefix / "not_there").touch(), "wanted absent"),
        (lambda prefix: shutil.rmtree(prefix / "etc"), "etc: absent, wanted directory"),
    ],
)
def test_each_difference_is_said(run: Run, recorded: Path, change: Callable[[Path], Any], said: str) -> None:
    change(recorded)
    different = compared(run, recorded)["different"]
    assert any(said in line for line in different), different


def test_a_link_that_leads_elsewhere_is_another_one(run: Run, recorded: Path) -> None:
    (recorded / "current").unlink()
    (recorded / "current").symlink_to("releases/2")
    assert compared(run, recorded)["different"] == [f"{recorded}/current: its content differs"]


def test_a_user_that_is_another_one_now_is_said(run: Run, recorded: Path) -> None:
    document = json.loads((recorded / ".applied").read_text())
    document["account"][2] = "/another/home"
    (recorded / ".applied").write_text(json.dumps(document))
    assert compared(run, recorded)["different"] == [f"user {ME}: the account has changed"]


def test_what_a_role_has_found_is_said_if_the_wish_is_the_same(run: Run, recorded: Path) -> None:
    path, found = str(recorded / ".applied"), ["the rules are not in force"]

    assert run(MODULE, path=path, fingerprint="f1", also=found)["different"] == found
    # Different wanted rules are a change, not drift.
    assert run(MODULE, path=path, fingerprint="f2", also=found)["different"] == []
    (recorded / ".applied").unlink()
    assert run(MODULE, path=path, fingerprint="f1", also=found)["different"] == []


def test_a_service_that_does_not_run_is_said(run: Run, deployment: Path) -> None:
    run(
        MODULE,
        path=str(deployment / ".applied"),
        state="present",
        fingerprint="f1",
        services=["seedcore-test-not-there"],
        socket=str(deployment / "supervisor.sock"),
    )
    (line,) = compared(run, deployment)["different"]
    assert line.startswith("service seedcore-test-not-there: is not known")


def test_a_run_that_works_on_it_is_said(run: Run, recorded: Path) -> None:
    other = {"prefix": str(recorded), "run": {"key": "other", "who": "me", "pid": 1}}
    try:
        run("deployment_lock", **other)
        found = run(MODULE, path=str(recorded / ".applied"), fingerprint="f1", prefix=str(recorded))
        assert found["different"] == ["another run works on the deployment"]
    finally:
        run("deployment_lock", state="absent", **other)
    assert run(MODULE, path=str(recorded / ".applied"), fingerprint="f1", prefix=str(recorded))["different"] == []


@pytest.mark.parametrize(
    ("said", "faults"),
    [
        ("ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no", []),
        ("ActiveState=failed\nUnitFileState=enabled\nNeedDaemonReload=no", ["service ray: ActiveState is failed"]),
        ("ActiveState=active\nUnitFileState=disabled\nNeedDaemonReload=no", ["service ray: UnitFileState is disabled"]),
        ("ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=yes", ["service ray: NeedDaemonReload is yes"]),
        ("", ["systemd does not answer: "]),
    ],
)
def test_a_unit_that_does_not_run_as_it_is_configured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, faults: list[str]
) -> None:
    answer = f"{GOOD}\n\n{said}" if said else ""
    systemd_says(tmp_path, monkeypatch, answer)
    assert unit_faults(["watchdog", "ray"]) == faults


GOOD = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no"


def systemd_says(directory: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Replace systemctl by a fake that prints like the real one, with a blank line between two units."""
    program = directory / "systemctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_process_of_another_unit_than_the_recorded_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_in = tmp_path / "override.conf"
    drop_in.write_text("[Service]\nNice=5\n")
    with contextlib.ExitStack() as running:
        old, new = (
            running.enter_context(subprocess.Popen(["sleep", "60"], env={"SERVICE_DEFINITION": text}))
            for text in ("before", "after")
        )
        running.callback(old.kill)
        running.callback(new.kill)
        systemd_says(tmp_path, monkeypatch, f"{GOOD}\nDropInPaths={drop_in}\nMainPID={new.pid}")
        recorded = definitions(["ray"])
        assert unit_faults(["ray"], recorded) == []

        systemd_says(tmp_path, monkeypatch, f"{GOOD}\nDropInPaths=\nMainPID={old.pid}")
        assert unit_faults(["ray"], recorded) == ["service ray: was started from another unit"]

        systemd_says(tmp_path, monkeypatch, f"{GOOD}\nDropInPaths={drop_in}\nMainPID={new.pid}")
        drop_in.write_text("[Service]\nNice=10\n")
        assert unit_faults(["ray"], recorded) == [f"service ray: was started from another unit and {drop_in}"]


def test_check_mode_writes_nothing_down(run: Run, deployment: Path) -> None:
    run(MODULE, check=True, path=str(deployment / ".applied"), state="present", fingerprint="f1")
    assert not (deployment / ".applied").exists()


def test_what_is_missing_or_cannot_be_written_is_an_error(run: Run, tmp_path: Path) -> None:
    failed = run(MODULE, path=str(tmp_path / ".applied"), state="present")
    assert "fingerprint" in failed["msg"]
    failed = run(MODULE, path=str(tmp_path / "none" / ".applied"), state="present", fingerprint="f1")
    assert failed["msg"] == f"{tmp_path}/none/.applied cannot be written: No such file or directory"


def record(run: Run, deployment: Path, *wanted: dict[str, Any]) -> dict[str, Any]:
    where = {"path": str(deployment / ".applied"), "trees": [str(deployment / "etc")], "user": ME}
    return run(MODULE, state="present", fingerprint="f1", wanted=list(wanted), **where)


def test_what_is_wanted_is_recorded_and_not_what_is_found(run: Run, deployment: Path) -> None:
    token = deployment / "etc" / "token"
    entry = {"path": str(token), "state": "attributes", "mode": "0600"}

    refused = record(run, deployment, entry)
    assert refused["msg"] == f"the host differs from the wanted state: {token}: mode 0644, wanted 0600"
    assert not (deployment / ".applied").exists(), "what is not as it is wanted is never called unchanged"

    token.chmod(0o600)
    assert record(run, deployment, entry)["recorded"]
    token.chmod(0o644)
    assert compared(run, deployment)["different"] == [f"{token}: mode 0644, wanted 0600"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "etc/more", "content": "x", "mode": "0600"}, "etc/more: absent, wanted file"),
        ({"path": "etc/token", "content": "one\ntwo\n", "mode": "0644"}, "etc/token: its content differs"),
        ({"path": "log", "state": "directory", "mode": "0700"}, "log: mode 0755, wanted 0700"),
        ({"path": "log", "state": "directory", "mode": "0755", "owner": "nobody"}, "wanted nobody:"),
        ({"path": "current", "state": "link", "target": "releases/2"}, "current: its content differs"),
        ({"path": "etc/token", "state": "absent"}, "wanted absent"),
        ({"path": "etc/more", "state": "attributes", "mode": "0600"}, "etc/more: absent, wanted file"),
    ],
)
def test_each_thing_that_is_not_as_it_is_wanted_is_said(
    run: Run, deployment: Path, entry: dict[str, str], said: str
) -> None:
    (line,) = record(run, deployment, {**entry, "path": str(deployment / entry["path"])})["different"]
    assert said in line


def test_a_run_says_what_is_not_as_it_is_wanted(run: Run, deployment: Path, tmp_path: Path) -> None:
    record(run, deployment)
    (deployment / "etc" / "token").chmod(0o600)

    code, screen = Play(tmp_path).run(MODULE, path=str(deployment / ".applied"), fingerprint="f1")

    assert code == 0
    assert f"[localhost] not as wanted: {deployment}/etc/token: mode 0600, wanted 0644" in screen


def test_a_run_of_a_part_records_nothing(deployment: Path, tmp_path: Path) -> None:
    path = deployment / ".applied"
    options = {"path": str(path), "state": "present", "fingerprint": "f1"}
    parts = [
        ("--limit", "localhost"),
        ("--tags", "never,always"),
        ("--skip-tags", "gate"),
        ("--start-at-task", "*deployment_record*"),
    ]

    for arguments in parts:
        Play(tmp_path).run(MODULE, *arguments, **options)
        assert not path.exists(), arguments

    Play(tmp_path).run(MODULE, **options)
    assert path.exists()


def test_a_part_whose_input_is_the_same_has_nothing_to_do_unless_the_host_differs(run: Run, deployment: Path) -> None:
    path, trees = str(deployment / ".applied"), [str(deployment / "etc")]
    run(MODULE, path=path, state="present", fingerprint="f1", trees=trees, parts={"ray": "r1", "agents": "a1"})

    def same(**parts: str) -> list[str]:
        found: list[str] = run(MODULE, path=path, fingerprint="f2", parts=parts)["same_parts"]
        return found

    assert same(ray="r1", agents="a2") == ["ray"]
    assert same(ray="r2", agents="a2", monitoring="m1") == []
    (deployment / "etc" / "token").write_text("another")
    assert same(ray="r1", agents="a1") == []


def test_a_record_from_before_there_were_parts_lets_every_step_run(run: Run, recorded: Path) -> None:
    document = json.loads((recorded / ".applied").read_text())
    del document["parts"]
    (recorded / ".applied").write_text(json.dumps(document))

    assert run(MODULE, path=str(recorded / ".applied"), fingerprint="f1", parts={"ray": "r1"})["same_parts"] == []
    assert compared(run, recorded)["made_from_the_same"] is True
