"""Test the role service: the rendered systemd unit, and the arguments of every caller."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.roles.test_habits import ROOT, tasks

SPECS = yaml.safe_load((ROOT / "roles/service/meta/argument_specs.yml").read_text())["argument_specs"]
# The steps that a variable of a caller names.
STEPS_OF = {"{{ __ray_operation }}": ["stop", "start"]}
pytestmark = pytest.mark.timeout(300)


def test_every_caller_passes_every_input_for_an_inventory_may_use_the_same_words_for_something_else() -> None:
    calls = [
        (path, task)
        for path, task in tasks()
        if (task.get("ansible.builtin.include_role") or {}).get("name") == "seedcore.cluster.service"
    ]
    assert len(calls) == 9
    for path, task in calls:
        step = task["ansible.builtin.include_role"].get("tasks_from", "main")
        entries = STEPS_OF.get(step, [step if step in SPECS else "main"])
        missing = {option for entry in entries for option in SPECS[entry]["options"]} - task["vars"].keys()
        assert not missing, f"{path}: {task['name']} leaves {sorted(missing)} to the inventory"


def started(environ: bytes | None, reload: str = "no") -> dict[str, Any]:
    content = {} if environ is None else {"content": base64.b64encode(environ).decode()}
    return {
        "__service_started": {"status": {"MainPID": "7", "NeedDaemonReload": reload}},
        "__service_environ": {"failed": False, **content},
    }


def test_a_unit_says_which_one_it_is_and_a_process_of_another_one_is_restarted(variable: Callable[..., Any]) -> None:
    text = variable("__service_unit_text", "service", service_name="a", service_prefix="/opt/s", service_command=["/x"])
    found = re.fullmatch(r'(.*\n)Environment="(SERVICE_DEFINITION=\w+)"\n', text, re.DOTALL)
    assert found
    body, mine = found.groups()
    assert mine.endswith(hashlib.sha256(body.encode()).hexdigest())
    assert body.rindex("[Service]") > body.rindex("[Install]"), "the last line is one of the service"

    def runs_another(*known: Any) -> Any:
        given = {"service_name": "a", "service_prefix": "/opt/s", "service_command": ["/x"]}
        return variable("__service_runs_another", "service", known=started(*known), **given)

    assert runs_another(f"A=b\0{mine}\0C=d\0".encode()) is False
    assert runs_another(b"A=b\0SERVICE_DEFINITION=old\0") is True
    assert runs_another(b"A=b\0") is True
    assert runs_another(None) is True, "it has just ended"
    assert runs_another(f"{mine}\0".encode(), "yes") is True


def test_a_deployment_may_add_to_the_unit_and_to_what_may_be_written(variable: Callable[..., Any]) -> None:
    given = {"service_prefix": "/opt/s", "service_name": "a", "service_command": ["/x"]}
    text = variable(
        "__service_unit_text", "service", **given, service_writable_paths=["/opt/s", "/data"],
        service_unit_options={"CPUQuota": "400%", "LimitMEMLOCK": "1G", "BindPaths": ["/a", "/b"]},
    )  # fmt: skip
    lines = text.splitlines()

    assert 'ReadWritePaths="/opt/s" "-/data"' in lines
    assert lines[-5:-1] == ["BindPaths=/a", "BindPaths=/b", "CPUQuota=400%", "LimitMEMLOCK=1G"]
    assert "TasksMax=infinity" in lines


def test_an_option_belongs_to_the_section_that_it_is_given_for(variable: Callable[..., Any]) -> None:
    given = {"service_prefix": "/opt/s", "service_name": "a", "service_command": ["/x"]}
    text = variable(
        "__service_unit_text", "service", **given,
        service_unit_options={
            "Unit": {"RequiresMountsFor": ["/data", "/scratch"]}, "Service": {"Nice": 5, "Restart": "no"},
            "Install": {"Also": "b.service"}, "CPUQuota": "400%",
        },
    )  # fmt: skip
    sections = {part.partition("]")[0]: part.splitlines() for part in text.split("\n[")}

    assert sections["Unit"][-2:] == ["RequiresMountsFor=/data", "RequiresMountsFor=/scratch"]
    assert sections["Install"][-1] == "Also=b.service"
    assert [line for line in sections["Service"] if line.startswith(("CPUQuota", "Nice", "Restart="))] == [
        "Restart=always", "CPUQuota=400%", "Nice=5", "Restart=no",
    ]  # fmt: skip


def test_what_a_deployment_may_not_add_is_named(variable: Callable[..., Any]) -> None:
    def faults(**given: Any) -> str:
        return "\n".join(variable("__ray_inventory_faults", **given))

    assert "ray_writable_paths has data: give absolute paths" in faults(ray_writable_paths="data,/srv")
    assert "ray_unit_options has an invalid cpu quota" in faults(ray_unit_options={"cpu quota": 1})
    assert "ray_unit_options has an invalid CPUQuota" in faults(ray_unit_options={"CPUQuota": "1%\nUser=root"})
    assert "ray_unit_options has an invalid CPUQuota" in faults(
        ray_unit_options={"Service": {"CPUQuota": ["1%", "2%\\"]}}
    )
    assert "ray_unit_options has the section Socket" in faults(ray_unit_options={"Socket": {"Accept": True}})
    assert "ray_unit_options has an invalid nice" in faults(ray_unit_options={"Service": {"nice": 5}})
    assert "ray_unit_options has an invalid Nice" in faults(ray_unit_options={"Service": {"Nice": {"is": 5}}})
    assert faults(ray_unit_options={"CPUQuota": "1%", "Unit": {"JobTimeoutSec": 5}}, ray_writable_paths=["/data"]) == ""


@pytest.mark.parametrize("given", [{"ray_service_manager": "supervisord"}, {"ray_service_manager": "auto"}])
def test_a_host_without_systemd_refuses_what_only_systemd_can_do(
    variable: Callable[..., Any], given: dict[str, Any]
) -> None:
    def faults(manager: str, **options: Any) -> str:
        return "\n".join(variable("__ray_host_faults", facts={"service_mgr": manager}, **given, **options))

    words = "ray_unit_options needs systemd, but supervisord runs Ray on this host"
    assert words in faults("docker-init", ray_unit_options={"Service": {"Nice": 5}})
    assert words not in faults("docker-init")
    assert (words in faults("systemd", ray_unit_options={"Nice": 5})) is (given["ray_service_manager"] != "auto")


def test_the_profile_for_gpus_has_what_their_libraries_ask_for(variable: Callable[..., Any]) -> None:
    gpu = variable("__service_hardening", "service", service_hardening="gpu")
    strict = variable("__service_hardening", "service", service_hardening="strict")

    assert "AF_NETLINK" in gpu["RestrictAddressFamilies"]
    assert "AF_NETLINK" not in strict["RestrictAddressFamilies"]
    assert gpu["LimitMEMLOCK"] == "infinity"


def test_a_unit_of_the_user_has_no_word_that_needs_root_and_starts_with_the_host(variable: Callable[..., Any]) -> None:
    given = {
        "service_prefix": "/home/me/s", "service_name": "a", "service_command": ["/x"], "service_user": "me",
        "service_start_pre": [["/y"]], "service_start_pre_root": [["nft"]], "service_stop_post_root": [["nft"]],
        "service_manager": "systemd_user",
    }  # fmt: skip
    facts = {"user_dir": "/home/me"}
    lines = variable("__service_unit_text", "service", facts=facts, **given).splitlines()

    assert variable("__service_unit", "service", facts=facts, **given) == "/home/me/.config/systemd/user/a.service"
    assert variable("__service_session", "service", facts=facts, **given) == {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert "WantedBy=default.target" in lines
    assert [line for line in lines if line.startswith("ExecStartPre")] == ['ExecStartPre="/y"']
    words = ("User=", "Group=", "Protect", "Private", "ExecStopPost", "CapabilityBoundingSet", "ReadWritePaths")
    assert not [line for line in lines if line.startswith(words)]
    with_root = "ray_service_manager is systemd_user, but ray_become is true"
    assert with_root in "\n".join(variable("__ray_inventory_faults", ray_service_manager="systemd_user"))


@pytest.mark.parametrize(("manager", "made"), [("systemd_user", True), ("systemd", False)])
def test_the_directory_for_units_of_a_user_is_made(rendered: Callable[..., Any], manager: str, made: Any) -> None:
    given = {"service_prefix": "/home/me/s", "service_name": "a", "service_command": ["/x"], "service_manager": manager}
    steps = rendered("service", "systemd", facts={"user_dir": "/home/me"}, **given)
    place = "Make the directory for the units of the user: {{ service_name }}"

    assert steps[f"{place}: when 0"] is made
    if made:
        assert steps[f"{place}: args"]["path"] == "/home/me/.config/systemd/user"


@pytest.mark.parametrize(
    ("kills", "manager", "written"), [(True, "auto", True), (False, "auto", False), (True, "supervisord", False)]
)
def test_a_service_can_be_killed_when_it_is_stopped(
    rendered: Callable[..., Any], kills: Any, manager: str, written: Any
) -> None:
    given = {"service_prefix": "/opt/s", "service_name": "a", "service_manager": manager, "service_become": True}
    steps = rendered("service", "stop", facts={"service_mgr": "systemd"}, service_stop_kills=kills, **given)
    place = "Let the unit be killed: {{ service_name }}"

    asked = [steps[f"{place}: when {number}"] for number in range(2) if f"{place}: when {number}" in steps]
    assert all(asked) is written
    drop_in = steps[f"{place}: args"]["files"][-1]
    assert drop_in["path"] == "/run/systemd/system/a.service.d/retired.conf"
    assert drop_in["content"].splitlines() == ["[Service]", "Restart=no", "KillSignal=SIGKILL"]
    assert steps["Stop the unit: {{ service_name }}: args"]["daemon_reload"] is kills


def test_a_unit_of_the_host_is_in_the_directory_of_root(variable: Callable[..., Any]) -> None:
    given = {"service_prefix": "/opt/s", "service_name": "a", "service_command": ["/x"], "service_become": True}
    lines = variable("__service_unit_text", "service", **given, service_user="ray").splitlines()

    assert variable("__service_unit", "service", **given) == "/etc/systemd/system/a.service"
    assert variable("__service_session", "service", **given) == {}
    assert {"User=ray", "WantedBy=multi-user.target", "After=network-online.target"} <= set(lines)


@pytest.mark.parametrize(
    ("found", "manager", "with_units"),
    [
        ({"rc": 0}, "systemd_user", True),
        ({"rc": 1}, "auto", False),
        ({"rc": 2}, "auto", False),
        ({"rc": 3}, "auto", False),
        ({"skipped": True}, "auto", False),
    ],
)
def test_without_root_the_systemd_of_a_user_runs_what_may_run_without_a_session(
    variable: Callable[..., Any], found: dict[str, Any], manager: str, with_units: Any
) -> None:
    known = {"__deployment_user_services": found}

    assert variable("deployment_service_manager", known=known, ray_become=False) == manager
    assert variable("__ray_under_systemd", known=known, ray_become=False) is with_units
    units = variable("__seedcore_units", "seedcore", facts={"user_dir": "/home/me"}, known=known, ray_become=False)
    assert units.startswith("/home/me/") is with_units
    for named in ("systemd", "systemd_user", "supervisord"):
        assert variable("deployment_service_manager", known=known, ray_service_manager=named) == named


def test_a_user_who_may_not_run_services_without_a_session_is_told_before_anything_starts(
    variable: Callable[..., Any],
) -> None:
    def faults(manager: str, rc: int) -> str:
        known = {"__deployment_user_services": {"rc": rc}}
        return "\n".join(variable("__ray_host_faults", known=known, ray_become=False, ray_service_manager=manager))

    words = "me may not run services without a session: let root run `loginctl enable-linger me`"
    assert words in faults("systemd_user", 1)
    assert words not in faults("systemd_user", 0)
    assert words not in faults("auto", 1)
    assert "the systemd of this user does not run: let root look at `systemctl status user@1000`" in faults(
        "systemd_user", 3
    )


def test_only_a_user_of_a_host_with_systemd_is_asked(variable: Callable[..., Any]) -> None:
    def asked(manager: str = "systemd", **given: Any) -> Any:
        return variable("__deployment_asks_user_services", facts={"service_mgr": manager, "user_uid": 1000}, **given)

    assert asked(ray_become=False)
    assert asked(ray_become="false", ray_service_manager="systemd_user")
    assert not asked(ray_become=True)
    assert not asked("docker-init", ray_become=False)
    assert not asked(ray_become=False, ray_service_manager="supervisord")


def test_what_runs_a_deployment_already_goes_on_running_it(tmp_path: Path) -> None:
    script = ROOT / "roles" / "deployment" / "files" / "user_services.sh"
    prefix, unit, programs = tmp_path / "p", tmp_path / "seedcore-ray.service", tmp_path / "bin"
    (prefix / "etc").mkdir(parents=True)
    programs.mkdir()
    for program in ("grep", "id"):
        (programs / program).symlink_to(str(shutil.which(program)))

    def answer() -> int:
        command = ["/bin/sh", "-c", script.read_text(encoding="utf-8"), str(prefix), str(unit), str(tmp_path)]
        return subprocess.run(command, env={"PATH": str(programs)}, check=False).returncode

    def polkit(code: int) -> None:
        (programs / "pkcheck").write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
        (programs / "pkcheck").chmod(0o755)

    assert answer() == 1
    polkit(0)
    assert answer() == 0
    (prefix / "etc" / "supervisord.conf").touch()
    assert answer() == 2
    unit.write_text("WorkingDirectory=/another\n", encoding="utf-8")
    assert answer() == 2
    polkit(1)
    unit.write_text(f"[Service]\nWorkingDirectory={prefix}\n", encoding="utf-8")
    assert answer() == 0


def test_lingering_is_asked_for_and_given_back_by_name_because_a_run_may_have_no_session(
    rendered: Callable[..., Any],
) -> None:
    given = {
        "service_prefix": "/home/me/s",
        "service_name": "a",
        "service_command": ["/x"],
        "service_manager": "systemd_user",
    }
    asking = rendered("service", "linger", **given)["Ask for it: {{ service_name }}: args"]
    giving = rendered("deployment", "remove", ray_become=False)
    assert asking["argv"] == ["loginctl", "enable-linger", "me"]
    assert giving["Give back the leave to run services without a session: args"]["argv"] == [
        "loginctl",
        "disable-linger",
        "me",
    ]
