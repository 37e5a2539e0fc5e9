"""Test the roles with unusual machines and habits of users, without a host."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(300)


def tasks() -> list[tuple[str, dict[str, Any]]]:
    """Yield every task of every role with its file."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        pending = list(yaml.safe_load(path.read_text()) or [])
        while pending:
            task = pending.pop(0)
            pending += [*task.get("block", []), *task.get("rescue", []), *task.get("always", [])]
            found.append((str(path.relative_to(ROOT)), task))
    return found


def test_what_runs_on_the_controller_runs_as_whoever_started_it() -> None:
    # A variable ansible_become in an inventory overrides become: false of a task.
    local = [(path, task) for path, task in tasks() if task.get("delegate_to") == "localhost"]

    assert local
    assert [path for path, task in local if (task.get("vars") or {}).get("ansible_become") is not False] == []


def test_facts_are_gathered_without_what_sudo_leaves_in_the_environment() -> None:
    # SUDO_COMMAND contains the mark by which Ansible detects sudo's answer. Ansible drops the line with the mark, which
    # holds the facts.
    gathered = [
        task["ansible.builtin.setup"]["gather_subset"] for _, task in tasks() if "ansible.builtin.setup" in task
    ]

    assert len(gathered) > 3
    # Hardware facts are gathered for inventory variables, which may also use facts of the environment.
    assert [subset for subset in gathered if "!env" not in subset] == [["hardware"]]


def test_packages_are_installed_where_there_are_no_lists_of_packages_yet(rendered: Callable[..., Any]) -> None:
    place = "Install the package {{ __ray_package }}: args"

    assert rendered("ray", "package", facts={"pkg_mgr": "apt"})[place]["update_cache"] is True
    assert "update_cache" not in rendered("ray", "package", facts={"pkg_mgr": "zypper"})[place]
    # cache_valid_time would skip the update after somebody has just emptied the directory of the lists.
    assert not [path for path, task in tasks() if "cache_valid_time" in json.dumps(task)]


def test_the_group_is_the_one_that_the_user_has(variable: Callable[..., Any]) -> None:
    facts = {"user_id": "bob", "user_gid": 100}
    mine = variable("deployment_directories", facts=facts, ray_become=False)
    system = variable("deployment_directories", facts=facts)

    assert {entry["group"] for entry in mine if "group" in entry} == {"100"}
    assert {entry["group"] for entry in system if "group" in entry} == {"ray"}


@pytest.mark.parametrize("code", [1, 217, 226])
def test_a_probe_that_fails_in_any_way_means_that_the_host_cannot(variable: Callable[..., Any], code: int) -> None:
    found = variable("__service_hardening", "service", known={"__service_private_users": {"rc": code}})
    probes = [task for path, task in tasks() if "systemd-run" in json.dumps(task)]

    assert found["PrivateUsers"] is False
    assert [task["failed_when"] for task in probes] == [False]


def test_without_a_sandbox_the_host_is_not_asked_what_it_can(variable: Callable[..., Any]) -> None:
    probe = [task for path, task in tasks() if task.get("ansible.builtin.include_tasks") == "private_users.yml"]

    assert len(probe) == 2
    assert all("service_hardening != 'none'" in task["when"] for task in probe)
    assert variable("__service_hardening", "service", service_hardening="none") == {}


def test_no_installation_lasts_for_ever() -> None:
    endless = [
        f"{path}: {task['name']}"
        for path, task in tasks()
        if any(word in json.dumps(task.get("ansible.builtin.command", "")) for word in ("venv", "install"))
        and "timeout" not in task
    ]
    assert endless == []


def test_a_variable_may_be_made_of_facts_that_are_not_there_yet(variable: Callable[..., Any]) -> None:
    made = {
        "ray_num_cpus": "{{ ansible_facts['processor_vcpus'] - 1 }}",
        "ray_object_store_memory": "{{ (ansible_facts['memtotal_mb'] * 200000) | int }}",
        "ray_labels": {"cpu": "{{ ansible_facts['architecture'] }}"},
    }

    assert variable("__ray_inventory_faults", **made) == []
    assert variable("__ray_undefined", **made) == sorted(made)
    assert any("ray_num_cpus cannot be evaluated" in fault for fault in variable("__ray_host_faults", **made))

    facts = {"processor_vcpus": 4, "memtotal_mb": 8000, "architecture": "x86_64"}
    assert variable("__ray_undefined", facts=facts, **made) == []
    assert "--num-cpus=3" in variable("__ray_command", facts=facts, **made)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ray_resources": {"CPU": 4}}, "ray_resources has CPU, but takes custom resources only: set ray_num_cpus"),
        ({"ray_resources": {"fast": 1.5}}, "a whole number or a fraction below 1"),
        ({"ray_resources": {"fast": -1}}, "a whole number or a fraction below 1"),
        ({"ray_labels": {"zone": "eu west"}}, "zone=eu west: keys and values"),
        ({"ray_labels": {"ray.io/zone": "a"}}, "no key may begin with ray.io/"),
        ({"ray_environment": {"a.b": 1}}, "a.b is not the name of a variable"),
        ({"ray_dashboard_host": "::1"}, "IPv4"),
        ({"ansible_python_interpreter": "/my home/python"}, "a space in its path"),
    ],
)
def test_what_ray_would_refuse_is_named_before_anything_starts(
    variable: Callable[..., Any], given: dict[str, Any], words: str
) -> None:
    assert words in "\n".join(variable("__ray_inventory_faults", **given))


@pytest.mark.parametrize(
    "given", [{"ray_resources": {"fast": 0.5, "disk": 2}}, {"ray_labels": {"a/zone": "", "rack": "r_1.2"}}]
)
def test_what_ray_takes_is_taken(variable: Callable[..., Any], given: dict[str, Any]) -> None:
    assert variable("__ray_inventory_faults", **given) == []


@pytest.mark.parametrize(("address", "words"), [("fd00::1", "IPv4 only"), ("127.0.0.2", "no other node can reach")])
def test_an_address_that_cannot_work_is_named(variable: Callable[..., Any], address: str, words: str) -> None:
    assert words in "\n".join(variable("__ray_host_faults", ray_node_ip=address))


def test_a_second_user_of_a_machine_is_told_the_one_variable_that_moves_all_ports(variable: Callable[..., Any]) -> None:
    held = {"__ray_port_holders": {"faults": ["port 26379 is held by raylet: stop it, or set ray_gcs_port"]}}
    faults = variable("__ray_host_faults", known=held, ray_first_port="26379")

    assert faults[-1] == "or move all ports together: -e ray_first_port=29379"
    local = yaml.safe_load((ROOT / "inventory/local/group_vars/all.yml").read_text())
    ports = {name: value for name, value in local.items() if name.endswith("_port")}
    assert len(ports) == 15
    assert all("ray_first_port | int" in str(value) for name, value in ports.items() if name != "ray_first_port")


def test_a_python_below_a_home_that_the_sandbox_hides_is_named(variable: Callable[..., Any]) -> None:
    report = json.loads(variable("deployment_host_report")["stdout"]) | {"python_path": "/root/.pyenv/bin/python3.11"}
    known = {"deployment_host_report": {"stdout": json.dumps(report)}}

    assert "which the sandbox hides" in "\n".join(variable("__ray_host_faults", known=known))
    assert "sandbox hides" not in "\n".join(variable("__ray_host_faults", known=known, ray_hardening="none"))


def test_a_release_of_another_ray_is_refused(variable: Callable[..., Any], tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("click==8.1\nray[default]==2.61.0 \\\n    --hash=sha256:0\n")

    assert "seedcore_requirements locks ray 2.61.0" in "\n".join(
        variable("seedcore_faults", "seedcore", seedcore_requirements=str(lock))
    )
    assert variable("seedcore_faults", "seedcore") == []


AWKWARD = {"JSON": '{"a": 1}', "NOTE": "x #y ;z", "BOTH": 'it\'s "so"', "LINES": "a\nb", "PERCENT": "%(x)s 100%"}


def test_a_program_of_supervisord_gets_its_environment_and_arguments_as_they_are(variable: Callable[..., Any]) -> None:
    dump = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    command = [sys.executable, "-c", dump, *AWKWARD.values()]
    script = variable(
        "__service_script_text", "service", service_environment=AWKWARD, service_command=command,
        service_start_pre=[["true", "a b"]],
    )  # fmt: skip
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    environment, arguments = json.loads(done.stdout)

    assert {name: environment[name] for name in AWKWARD} == AWKWARD
    assert arguments == list(AWKWARD.values())


def test_a_program_does_not_start_where_the_step_before_it_fails(variable: Callable[..., Any]) -> None:
    script = variable(
        "__service_script_text", "service", service_command=["echo", "started"], service_start_pre=[["false"]]
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")


def targets(*health: str) -> dict[str, Any]:
    active = [
        {
            "health": word,
            "scrapeUrl": f"http://10.0.0.{number}:6384/metrics",
            "lastError": "refused" if word == "down" else "",
        }
        for number, word in enumerate(health, start=1)
    ]
    return {"__monitoring_targets": {"status": 200, "json": {"data": {"activeTargets": active}}}}


def test_monitoring_whose_targets_are_down_is_red_and_names_them(variable: Callable[..., Any]) -> None:
    ask = {"role": "monitoring"}
    assert variable("__monitoring_scraped", known=targets(*["up"] * 5), **ask) is True
    down = targets("up", "up", "up", "up", "down")
    assert variable("__monitoring_scraped", known=down, **ask) is False
    assert variable("__monitoring_scraped", known=down, monitoring_require_targets="false", **ask) is True
    words = variable("__monitoring_not_scraped", known=down, **ask)
    assert "does not reach 1 of 5 targets" in words[0]
    assert words[1] == "http://10.0.0.5:6384/metrics: refused"
    silent = {"__monitoring_targets": {"status": -1, "msg": "Connection refused"}}
    assert (
        "does not answer after 60 s: Connection refused" in variable("__monitoring_not_scraped", known=silent, **ask)[0]
    )


def test_what_ray_does_not_use_any_more_is_pruned_and_what_it_uses_is_not(variable: Callable[..., Any]) -> None:
    assert sorted(variable("__ray_old")) == ["cache/wheelhouse-old", "ray/old"]
    current = Path(variable("ray_runtime")).name
    report = json.loads(variable("deployment_host_report")["stdout"]) | {"installed": [f"ray/{current}", "ray/old"]}
    known = {"deployment_host_report": {"stdout": json.dumps(report)}}
    assert variable("__ray_old", known=known) == ["ray/old"]
    assert variable("__ray_old", known=known, ray_kept=["ray/old"]) == []


def test_rules_of_an_interrupted_run_or_of_another_wish_are_not_in_force(variable: Callable[..., Any]) -> None:
    mark = variable("__ray_firewall_mark")

    def wanted(*chains: str, **given: Any) -> Any:
        report = json.loads(variable("deployment_host_report")["stdout"]) | {"nft_chains": chains}
        return variable(
            "__ray_firewall_as_wanted", known={"deployment_host_report": {"stdout": json.dumps(report)}}, **given
        )

    assert wanted("seedcore_ray/input", f"seedcore_ray/{mark}") is True
    assert wanted("seedcore_ray/input", "seedcore_ray/rules_of_before") is False
    assert wanted(f"seedcore_ray/{mark}") is False
    assert wanted("seedcore_ray/input", f"seedcore_ray/{mark}", ray_metrics_sources="10.9.9.9") is False
    assert wanted("seedcore_ray/input", f"seedcore_ray/{mark}", ray_close_metrics_ports="false") is False
    assert wanted(ray_close_metrics_ports="false") is True


@pytest.mark.parametrize(
    ("inventory", "extra", "prefix"),
    [
        ({}, {}, "/opt/seedcore"),
        ({}, {"ray_prefix": "/srv/all"}, "/srv/all"),
        ({"worker-1": {"ray_prefix": "/srv/worker"}}, {}, "/opt/seedcore"),
        ({"worker-1": {"ray_prefix": "/srv/worker"}, "head-1": {"ray_prefix": "/srv/head"}}, {}, "/srv/head"),
    ],
)
def test_the_lock_is_that_of_the_head_whichever_host_a_run_begins_with(
    variable: Callable[..., Any], inventory: dict[str, Any], extra: dict[str, Any], prefix: str
) -> None:
    assert variable("deployment_head_prefix", host="worker-1", inventory=inventory, **extra) == prefix
    locks = [
        task["seedcore.cluster.deployment_lock"] for _, task in tasks() if "seedcore.cluster.deployment_lock" in task
    ]
    assert [entry["prefix"] for entry in locks] == ["{{ deployment_head_prefix }}"] * 2


def test_the_watchdog_is_told_how_much_the_logs_of_the_dead_may_take(variable: Callable[..., Any]) -> None:
    bounds = {"ray_dead_logs_max_bytes": "5000000", "ray_dead_logs_max_files": 70, "ray_unhealthy_timeout": 0}

    head = variable("__ray_watchdog_command", **bounds)
    worker = variable("__ray_watchdog_command", host="worker-1", **bounds)

    program, url, temp_dir, *numbers = head[1:]
    assert program.endswith("/libexec/watch_ray_node.py")
    assert url.startswith("http://")
    assert temp_dir.endswith("/tmp")
    assert numbers == ["120", "0", "5000000", "70"]
    assert [len(worker) - len(head), worker[5:8]] == [2, numbers[1:]]
    shipped = {Path(entry["path"]).name for entry in variable("__ray_files")}
    assert {"watch_ray_node.py", "node_processes.py", "dead_logs.py"} <= shipped


def test_a_reload_of_nftables_brings_the_rules_back_and_the_gate_sees_their_loss(
    rendered: Callable[..., Any], variable: Callable[..., Any]
) -> None:
    placed = {entry["path"]: entry for entry in variable("__ray_wanted")}
    lines = placed["/etc/systemd/system/nftables.service.d/seedcore-ray.conf"]["content"].splitlines()
    loading = '-+nft --file "/opt/seedcore/etc/metrics.nft"'
    assert lines[1:] == ["[Service]", f"ExecStartPost={loading}", f"ExecReload={loading}"]

    mark = variable("__ray_firewall_mark")
    chain = "chain input {\n reject with tcp reset\n }"

    def holds(stdout: str, rc: int = 0) -> Any:
        return variable("__ray_firewall_holds", known={"__ray_firewall_table_shown": {"rc": rc, "stdout": stdout}})

    assert holds(f"table inet seedcore_ray {{\n chain {mark} {{\n }}\n {chain} }}") is True
    assert holds(f"table inet seedcore_ray {{\n chain {mark} {{\n }}\n chain input {{\n }} }}") is False, "flushed"
    assert holds(f"table inet seedcore_ray {{\n chain rules_old {{\n }}\n {chain} }}") is False
    assert holds("", rc=1) is False
    refused = "Refuse metrics ports that are open to everybody: when 0"
    assert rendered("ray", "check_firewall")[refused] is True
    assert rendered("ray", "check_firewall", ray_close_metrics_ports="false")[refused] is False


def test_ports_that_linux_gives_to_anybody_are_reserved(variable: Callable[..., Any], tmp_path: Path) -> None:
    assert variable("__ray_ephemeral_ports") == [44217, 44227, 52365]
    assert variable("__ray_ephemeral_ports", host="worker-1") == [52365]
    *command, path = variable("__ray_reserve_ports")
    assert path == "/proc/sys/net/ipv4/ip_local_reserved_ports"
    reserved = tmp_path / "reserved"
    for before, after in {"\n": "44217,52365\n", "8080,9000-9010\n": "8080,9000-9010,44217,52365\n"}.items():
        reserved.write_text(before)
        subprocess.run([*command, str(reserved), "44217,52365"], check=True)
        assert reserved.read_text() == after
    # A host that forbids it runs without the reservation.
    subprocess.run([*command, str(tmp_path / "none" / "reserved"), "1"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ({"rc": 0, "stdout": '{"ok": true, "faults": []}'}, []),
        ({"rc": 1, "stdout": '{"faults": ["a gets no object", "b gets no object"]}'},
         ["network: a gets no object", "network: b gets no object"]),
        ({"rc": 4, "stdout": "", "stderr_lines": ["unreachable: Ray does not answer"]},
         ["network: unreachable: Ray does not answer"]),
        # A release that does not have the command yet.
        ({"rc": 2, "stdout": "", "stderr_lines": ["Error: No such command 'network'."]}, []),
        ({"failed": True, "msg": "Timed out after 120 second(s)."}, ["network: seedcore network did not end in time"]),
    ],
)  # fmt: skip
def test_the_gate_names_what_nodes_cannot_send_each_other(
    variable: Callable[..., Any], answer: dict[str, Any], faults: list[str]
) -> None:
    known = {"__seedcore_gate_network": answer}
    assert variable("__seedcore_gate_network_faults", "seedcore_gate", known=known) == faults


def test_a_token_of_digits_is_a_text(variable: Callable[..., Any], rendered: Callable[..., Any]) -> None:
    assert variable("__ray_inventory_faults", ray_auth_token=1234567890123456) == []
    assert "ray_auth_token must have at least 16" in "\n".join(variable("__ray_inventory_faults", ray_auth_token=123))
    given = rendered("ray", "token", ray_auth_token=1234567890123456)
    assert given["Write the given token: args"]["content"] == "1234567890123456"
    assert given["Write the given token: when 0"] is True


def test_a_certificate_without_its_key_is_named_in_preflight(variable: Callable[..., Any], tmp_path: Path) -> None:
    authority = trustme.CA()
    issued, other = authority.issue_cert("head.example"), authority.issue_cert("head.example")
    (tmp_path / "a.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (tmp_path / "a.key").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "b.key").write_bytes(other.private_key_pem.bytes())

    def faults(key: str) -> Any:
        pair = {"seedcore_http_tls_certificate": f"{tmp_path}/a.pem", "seedcore_http_tls_key": f"{tmp_path}/{key}"}
        return variable("seedcore_faults", "seedcore", **pair)

    assert faults("a.key") == []
    assert "the key does not belong to the certificate" in faults("b.key")[0]
    assert len(faults("none.key")) == 1, "a file that is not there is named once"


def test_an_inbox_in_postgresql_brings_its_driver_and_its_password_only_from_a_file(
    variable: Callable[..., Any], tmp_path: Path
) -> None:
    def faults(**given: str) -> Any:
        return variable("seedcore_faults", "seedcore", **given)

    url, passfile = "postgresql://me@db.example/inbox?sslmode=verify-full", tmp_path / "pgpass"
    passfile.write_text("db.example:5432:inbox:me:hunter2\n")

    assert faults(seedcore_inbox=url, seedcore_inbox_passfile=str(passfile)) == []
    for wrong in ("mysql://me:hunter2@db/inbox", "postgresql://me:hunter2@db/i", "postgres://db/i?password=hunter2"):
        (text,) = faults(seedcore_inbox=wrong)
        assert text.startswith("seedcore_inbox ")
        assert "hunter2" not in text
    (missing,) = faults(seedcore_inbox=url, seedcore_inbox_passfile=f"{tmp_path}/none")
    assert missing.startswith("seedcore_inbox_passfile: the controller has no file")
    for inbox, name in ((url, "postgres.txt"), ("sqlite", "requirements.txt")):
        lock = Path(variable("seedcore_requirements", "seedcore", seedcore_inbox=inbox))
        assert lock.name == name
        assert ("psycopg-binary==" in lock.read_text()) is (inbox == url)
    text = variable(
        "__seedcore_environment_text", "seedcore", seedcore_inbox=url, seedcore_inbox_passfile=str(passfile)
    )
    assert f"SEEDCORE_INBOX='{url}'" in text.splitlines()
    assert "/etc/inbox.pgpass" in text
    assert "hunter2" not in text


def test_a_wait_counts_seconds(rendered: Callable[..., Any], variable: Callable[..., Any]) -> None:
    moved = rendered("seedcore", "moved", ray_drain_timeout="20")
    place = "Wait until what ran on the node runs elsewhere: {{ seedcore_drained_node }}"
    assert int(moved[f"{place}: retries"]) == 50, "one each second at most"
    waits = [task for path, task in tasks() if "until" in task]
    assert len(waits) == 2
    assert all("now().timestamp() >" in task["until"] for task in waits)


def test_an_interrupted_installation_of_prometheus_knows_the_package_as_its_own() -> None:
    steps = [task for path, task in tasks() if path == "roles/monitoring/tasks/install.yml"]
    names = [task["name"] for task in steps]
    mark, package = (
        names.index(name) for name in ("Record that this deployment installs the package", "Install the package")
    )
    stopped = next(task for task in steps if "systemd_service" in str(task))

    assert mark < package, "an interruption in between leaves the mark"
    assert "__monitoring_mark.stat.exists" in stopped["when"], "whichever run has installed it"


WANTED = ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "HTTPS_PROXY", "UV_HTTP_TIMEOUT")


def test_a_password_of_an_index_is_in_a_file_of_root_and_on_no_command_line(
    rendered: Callable[..., Any], tmp_path: Path, variable: Callable[..., Any]
) -> None:
    given = {
        "ray_index_url": "https://robot:s3cr'et@index.example/simple",
        "ray_proxy_url": "http://proxy.example:3128",
    }
    more = {"ray_install_environment": {"UV_HTTP_TIMEOUT": "60"}, "ray_prefix": str(tmp_path)}
    (tmp_path / "etc").mkdir()
    task = rendered("deployment", "install_settings", **given, **more)["Write the environment of pip and uv: args"]
    (written,) = task["files"]
    assert written["mode"] == "0600"
    Path(written["path"]).write_text(written["content"])

    dump = [sys.executable, "-c", "import json, os; print(json.dumps([dict(os.environ), os.umask(0)]))"]
    done = subprocess.run(
        [*variable("deployment_installing", **given, **more), *dump], capture_output=True, text=True, check=True
    )
    environment, umask = json.loads(done.stdout)
    assert umask == 0o022
    assert {name: environment[name] for name in environment if name in WANTED} == {
        "UV_DEFAULT_INDEX": given["ray_index_url"], "PIP_INDEX_URL": given["ray_index_url"],
        "HTTPS_PROXY": given["ray_proxy_url"], "UV_HTTP_TIMEOUT": "60",
    }  # fmt: skip
    assert environment["UV_SYSTEM_CERTS"] == "true", "what is given replaces nothing else"

    for role, step in (("ray", "tools"), ("ray", "runtime"), ("seedcore", "install")):
        found = rendered(role, step, **given, **more)
        passed = {place: value for place, value in found.items() if place.endswith((": args", ": environment"))}
        assert len(passed) > 2
        assert "s3cr" not in json.dumps(passed), f"{role}/{step}"
    exposed = [
        f"{path}: {task['name']}" for path, task in tasks() if "install_environment" in str(task.get("environment"))
    ]
    assert exposed == []


def test_with_a_wheelhouse_there_is_no_index(variable: Callable[..., Any]) -> None:
    found = variable("deployment_install_environment", ray_index_url="https://index.example", ray_wheelhouse="/w.tar")
    assert found["UV_NO_INDEX"] == "true"
    assert "UV_DEFAULT_INDEX" not in found
    assert "ray_index_url must begin with" in "\n".join(
        variable("__ray_inventory_faults", ray_index_url="index.example")
    )


def report(variable: Callable[..., Any], **known: Any) -> dict[str, Any]:
    found = json.loads(variable("deployment_host_report")["stdout"]) | known
    return {"deployment_host_report": {"stdout": json.dumps(found)}}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"units": {"seedcore-ray": "/opt/other"}}, "seedcore-ray on this host belongs to /opt/other: give"),
        ({"units": {"seedcore-supervise": ""}}, "seedcore-supervise on this host belongs to something else"),
        ({"units": {"old-ray": "/opt/seedcore"}}, "this host still has old-ray, which this deployment has renamed"),
        ({"owner": "bob"}, "ray_user is ray, but the files in /opt/seedcore belong to bob"),
    ],
)
def test_what_another_deployment_has_on_the_host_is_named(
    variable: Callable[..., Any], seen: dict[str, Any], words: str
) -> None:
    known = report(variable, **seen)
    assert words in "\n".join(variable("__ray_host_faults", known=known))
    assert words not in "\n".join(variable("__ray_host_faults", known=known, ray_become="false"))


def test_units_of_this_deployment_and_of_others_beside_it_are_no_fault(variable: Callable[..., Any]) -> None:
    units = {"seedcore-ray": "/opt/seedcore", "seedcore-ray-watchdog": "/opt/seedcore", "sshd": "", "b-ray": "/opt/b"}
    assert not [
        fault for fault in variable("__ray_host_faults", known=report(variable, units=units)) if "units" in fault
    ]


def test_an_environment_that_was_made_anew_is_run_from_now_on(
    variable: Callable[..., Any], rendered: Callable[..., Any]
) -> None:
    name = Path(variable("ray_runtime")).name
    complete = [f"ray/{name}/.complete", f"tools/.{variable('__ray_tools_digest')}"]
    known = report(variable, complete=complete, runtime_revisions={name: "20261126T210000Z"})

    assert variable("__ray_runtime_revision") == ""
    assert variable("__ray_runtime_revision", known=known) == "20261126T210000Z"
    assert variable("__ray_runtime_revision", known={**known, "__ray_reinstalled": "now"}) == "now"
    assert rendered("ray", "prepare", ray_reinstall="true")["Install Ray: when 0"] is True
    assert rendered("ray", "prepare", ray_reinstall="true")["Install the tools: when 0"] is True
    assert variable("__seedcore_recognized", "seedcore", ray_reinstall="true") is False


def test_the_same_python_at_another_path_makes_no_other_environment(variable: Callable[..., Any]) -> None:
    def made(path: str, version: str = "3.11.7") -> tuple[str, str]:
        known = report(variable, python=version, python_path=path)
        given = {"ray_python": path, "known": known}
        return variable("ray_runtime", **given), variable("__ray_tools_digest", **given)

    assert made("/usr/bin/python3.11") == made("/home/me/another/checkout/.venv/bin/python")
    assert not set(made("/usr/bin/python3.11")) & set(made("/usr/bin/python3.12", version="3.12.1"))


def test_a_node_with_another_release_or_without_an_answer_is_named(variable: Callable[..., Any]) -> None:
    def active(name: str, release: str) -> dict[str, Any]:
        return {"item": name, "stat": {"exists": True, "lnk_source": f"/opt/seedcore/releases/{release}"}}

    looked = [active("head-1", "1-a"), active("worker-1", "1-b"), {"item": "worker-2", "unreachable": True}]
    looked.append({"item": "worker-3", "stat": {"exists": False}})
    known = {"__seedcore_gate_releases": {"results": looked}}

    assert variable("__seedcore_gate_others", "seedcore_gate", known=known) == ["worker-1", "worker-2", "worker-3"]


@pytest.mark.parametrize(
    ("different", "cut_off"), [(["/opt/seedcore/bin/ray"], False), (["/opt/seedcore/etc/ray.env"], True)]
)
def test_only_a_worker_that_still_has_its_cluster_is_drained_before_its_restart(
    ask: Callable[..., Any], different: list[str], cut_off: Any
) -> None:
    known = {"__ray_placed": {"different": different}, "service_differs": True}
    found = ask({"roles": ["ray"], "steps": ["compare"], "extra": {}, "known": known})
    facts = found["head-1: ray/compare: Decide whether the node has to be drained before its restart: args"]
    assert facts["ray_drain_first"] is not cut_off


def test_a_default_that_names_a_file_of_its_role_works_in_a_task_of_another_role() -> None:
    # role_path is that of the role whose task runs, and the checks of the role ray evaluate every variable.
    bare = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in ROOT.glob("roles/*/defaults/*.yml")
        for line in path.read_text().splitlines()
        if "role_path }}/files" in line or "role_path ~ '/files" in line
    ]
    assert bare == []


def test_clusters_on_one_host_have_nothing_in_common(variable: Callable[..., Any]) -> None:
    names = [
        ("ray_prefix", "ray"), ("ray_user", "ray"), ("ray_service_name", "ray"), ("ray_watchdog_service_name", "ray"),
        ("seedcore_supervise_service_name", "seedcore"), ("monitoring_prefix", "monitoring"),
        ("monitoring_service_name", "monitoring"),
    ]  # fmt: skip

    only = {name: variable(name, role) for name, role in names}
    blue = {name: variable(name, role, seedcore_cluster="blue") for name, role in names}

    assert only == {
        "ray_prefix": "/opt/seedcore",
        "ray_user": "ray",
        "ray_service_name": "seedcore-ray",
        "ray_watchdog_service_name": "seedcore-ray-watchdog",
        "seedcore_supervise_service_name": "seedcore-supervise",
        "monitoring_prefix": "/opt/seedcore-monitoring",
        "monitoring_service_name": "seedcore-prometheus",
    }
    assert blue == {
        "ray_prefix": "/opt/seedcore-blue",
        "ray_user": "ray-blue",
        "ray_service_name": "seedcore-blue-ray",
        "ray_watchdog_service_name": "seedcore-blue-ray-watchdog",
        "seedcore_supervise_service_name": "seedcore-blue-supervise",
        "monitoring_prefix": "/opt/seedcore-blue-monitoring",
        "monitoring_service_name": "seedcore-blue-prometheus",
    }
    assert variable("ray_prefix", seedcore_cluster="Blue 1") == "/opt/seedcore-Blue 1"
    faults = variable("__ray_variable_faults", seedcore_cluster="Blue 1")
    assert "seedcore_cluster is Blue 1: set a name" in str(faults)


def test_the_watchdog_is_restarted_for_each_file_that_it_is_made_of() -> None:
    files = ROOT / "roles" / "ray" / "files"
    pending, made_of = ["watch_ray_node.py"], set()
    while pending:
        name = pending.pop()
        made_of.add(name)
        imported = re.findall(r"^(?:from|import) (\w+)", (files / name).read_text(), re.MULTILINE)
        pending += [
            f"{module}.py" for module in imported if (files / f"{module}.py").exists() and f"{module}.py" not in made_of
        ]

    revision = json.dumps([task for path, task in tasks() if path == "roles/ray/tasks/watchdog.yml"])

    assert len(made_of) > 1
    assert [name for name in sorted(made_of) if f"'{name}'" not in revision] == []


def test_two_deployments_with_a_host_of_the_same_name_have_evidence_of_their_own(variable: Callable[..., Any]) -> None:
    def path(**given: Any) -> Any:
        return variable("seedcore_gate_evidence_path", "seedcore_gate", ray_gcs_address="10.0.0.1:6379", **given)

    paths = [
        path(ray_prefix="/opt/a"),
        path(ray_prefix="/opt/b"),
        path(ray_prefix="/opt/a", seedcore_namespace="other"),
    ]

    assert len(set(paths)) == len(paths)
    assert path(ray_prefix="/opt/a") == paths[0]


def test_the_steps_of_ray_and_the_services_are_left_out_only_if_nothing_of_them_has_changed(
    variable: Callable[..., Any],
) -> None:
    def left_out(parts: list[str], **given: Any) -> Any:
        recorded = {"made_from_the_same": False, "different": [], "same_parts": parts}
        return variable("__seedcore_services_recognized", "seedcore", known={"deployment_recorded": recorded}, **given)

    assert left_out(["services"]) is True
    assert left_out([]) is False
    assert left_out(["services"], ray_reinstall="true") is False
    assert left_out(["services"], seedcore_every_step="true") is False
    assert left_out(["services"], ray_wheelhouse="/w.tar") is False


def test_what_only_the_organism_is_made_of_is_no_input_of_the_services(variable: Callable[..., Any]) -> None:
    def inputs(known: dict[str, Any] | None = None, **given: Any) -> str:
        return json.dumps(variable("__seedcore_services_made_from", "seedcore", known=known or {}, **given))

    before = inputs()
    assert inputs({"seedcore_agents": "1-a.c"}) == before
    assert inputs({"seedcore_release": "1-b", "seedcore_agents": ""}) == before
    assert inputs({"ray_fingerprint": "g"}) != before
    assert inputs(seedcore_http_port=9000) != before


def test_a_release_is_not_activated_beside_another_one_that_limit_leaves_in_place(variable: Callable[..., Any]) -> None:
    def active(name: str, release: str) -> dict[str, Any]:
        return {"item": name, "stat": {"exists": True, "lnk_source": f"/opt/seedcore/releases/{release}"}}

    looked = [active("worker-1", "1-a"), active("worker-2", "1-b"), {"item": "worker-3", "unreachable": True}]
    looked.append({"item": "worker-4", "stat": {"exists": False}})
    active_now = {"seedcore_release": "1-a", "seedcore_agents": "", "seedcore_environment_ids": {}}
    known = {"__seedcore_left_out": {"results": looked}, **active_now}

    assert variable("__seedcore_other_release", "seedcore", known=known) == ["worker-2"]
    steps = [
        task.get("ansible.builtin.include_tasks", task["name"])
        for path, task in tasks()
        if path == "roles/seedcore/tasks/activate.yml"
    ]
    assert steps.index("left_out.yml") < steps.index("config.yml"), "before anything changes"


@pytest.mark.parametrize(
    ("cause", "reverts"),
    [
        ("init_failed: agent a_agent_0 did not start: RuntimeError: no (after 3 s)", True),
        ("organs_down: a: 0 of 1 agents ready (after 120 s)", True),
        ("starting: still initializing: 0 of 1 organs ready (after 60 s)", True),
        ("nodes_missing: nodes that are not alive: worker-1 (after 120 s)", False),
        ("network: worker-1 cannot fetch from worker-2", False),
        ("organs_paused: pay is paused by 'anna' since 2026-11-27T21:31:56+00:00, its tasks wait (after 1 s)", False),
        ("inbox_in_use: the inbox is not open: another process has it (after 120 s)", False),
    ],
)
def test_only_what_another_release_may_mend_is_reverted(
    variable: Callable[..., Any], cause: str, *, reverts: bool
) -> None:
    name = "__seedcore_release_may_be_at_fault"
    assert variable(name, role="seedcore", ansible_failed_result={"msg": cause}) is reverts


def test_a_step_that_a_playbook_includes_derives_the_variables_of_other_roles_by_itself() -> None:
    """An included role leaves no variables to the next one, and an inventory need not set those with a default."""

    def included(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        inner = [task for one in found for key in ("block", "rescue", "tasks") for task in included(one.get(key) or [])]
        return inner + [role for one in found if (role := one.get("ansible.builtin.include_role"))]

    steps = {
        (role["name"].rpartition(".")[2], role.get("tasks_from", "main"))
        for path in (ROOT / "playbooks").rglob("*.yml")
        for role in included(yaml.safe_load(path.read_text()))
    }
    assert {("seedcore", "was_up"), ("seedcore", "red"), ("seedcore", "vacate")} <= steps
    for role, step in sorted(steps):
        if role.startswith("seedcore") and step != "layout":
            first = yaml.safe_load((ROOT / "roles" / role / "tasks" / f"{step}.yml").read_text())[0]
            layout = first.get("ansible.builtin.import_tasks") or first.get("ansible.builtin.import_role", {}).get(
                "tasks_from"
            )
            assert layout in ("layout.yml", "layout"), f"{role}: {step}"


@pytest.mark.parametrize("length", [35, 36, 38, 90])
def test_the_sockets_of_ray_fit_whatever_the_number_of_its_process(variable: Callable[..., Any], length: int) -> None:
    prefix = "/srv/" + "x" * (length - 5)
    directory = variable("ray_temp_dir", ray_prefix=prefix, ray_become=True)
    # A process id of Linux has up to seven digits.
    socket = f"{directory}/session_2026-11-27_16-32-57_797555_4194303/sockets/dash_MetricsHead"
    assert len(socket) <= 107
    assert directory.startswith(prefix) == (length <= 35)


def test_a_repeated_restart_goes_on_for_a_day_with_the_nodes_that_are_left(variable: Callable[..., Any]) -> None:
    def resumes(hours: float, **given: Any) -> Any:
        lines = (
            f"only=w1,w2 packages=none reboot=no\nbegan {time.time() - hours * 3600:.0f}\nbegun w1\ndone w1\nbegun w2\n"
        )
        known = {"__seedcore_restart_read": {"content": base64.b64encode(lines.encode()).decode()}}
        options = {"seedcore_restart_nodes": ["w1", "w2"], "deployment_reboot": "no", **given}
        lines_ = variable("__seedcore_restart_lines", "seedcore", known=known, **options)
        assert bool(lines_) is variable("__seedcore_restart_resumes", "seedcore", known=known, **options)
        return lines_

    assert resumes(1) == ["begun w1", "done w1", "begun w2"]
    assert resumes(25) == []
    assert resumes(1, deployment_reboot="always") == [], "another operation"
    assert resumes(1, seedcore_restart_nodes=["w1"]) == []
    assert resumes(1, seedcore_restart_resume="false") == []
    assert variable("__seedcore_restart_resumes", "seedcore", known={"__seedcore_restart_read": {}}) is False


def test_a_node_that_an_interrupted_restart_has_left_down_is_not_waited_for_before_its_turn(
    variable: Callable[..., Any],
) -> None:
    def left_down(batch: list[str]) -> Any:
        known = {"__seedcore_restart_begun": ["w1", "w2", "w3"], "__seedcore_restart_done": ["w1"]}
        return variable("__seedcore_restart_left_down", "seedcore", known={**known, "ansible_play_batch": batch})

    assert sorted(left_down(["w2"])) == ["w3"]
    assert left_down(["w2", "w3"]) == []


APT = """#!/bin/sh
[ "$3" = upgrade ] || exit 0
echo 'Inst libssl3 [3.0.15-1~deb12u1] (3.0.17-1~deb12u2 Debian-Security:12/stable-security [amd64])'
echo 'Inst tzdata [2024a-0+deb12u1] (2025b-0+deb12u2 Debian:12.12/oldstable [all])'
echo 'Inst openssl [3.0.2] (3.0.3 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])'
echo 'Conf libssl3 (3.0.17-1~deb12u2 Debian-Security:12/stable-security [amd64])'
"""


def test_only_security_upgrades_are_listed(tmp_path: Path) -> None:
    program = tmp_path / "apt-get"
    program.write_text(APT)
    program.chmod(0o755)
    script = (ROOT / "roles/deployment/files/security_upgrades.sh").read_text()

    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )

    assert done.stdout.split() == ["libssl3", "openssl"]


@pytest.mark.parametrize(("code", "words"), [(0, ""), (1, "an upgrade asks for it (needs-restarting)")])
def test_a_reboot_needs_a_reason(tmp_path: Path, code: int, words: str) -> None:
    program = tmp_path / "needs-restarting"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    script = (ROOT / "roles/deployment/files/reboot_needed.sh").read_text().replace("/run/", f"{tmp_path}/")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=environment)
    (tmp_path / "reboot-required").touch()
    asked = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == words
    assert asked.stdout.startswith("an upgrade asks for it (")


def test_hosts_are_named_in_the_order_of_the_inventory() -> None:
    # union makes a set of strings, whose order differs from run to run.
    lines = [line for path in sorted(ROOT.glob("playbooks/**/*.yml")) for line in path.read_text().splitlines()]

    assert [line for line in lines if re.search(r"\| union\((?!.*\| (sort|length))", line)] == []


READABLE = json.dumps({"tasks": {"ready": 3, "parked": 1, "done": 7}})


@pytest.mark.parametrize(
    ("answer", "given", "words"),
    [
        (
            {"rc": 0, "stdout": READABLE, "stderr": ""},
            {},
            ["head-1 has an inbox with 4 durable tasks that have not ended"],
        ),
        ({"rc": 0, "stdout": READABLE, "stderr": ""}, {"seedcore_restore_of": "head-0"}, []),
        ({"rc": 1, "stdout": "", "stderr": "there is no inbox in /x"}, {}, []),
        ({"rc": 1, "stdout": "", "stderr": "error: the database is damaged"}, {}, ["cannot be read", "is damaged"]),
        ({"rc": 1, "stdout": "", "stderr": "the database is damaged"}, {"seedcore_restore_loses_inbox": True}, []),
        ({"skipped": True}, {}, []),
    ],
    ids=["tasks", "put there by the interrupted restore", "none", "damaged", "given up", "no deployment"],
)
def test_a_restore_does_not_replace_accepted_tasks(
    variable: Callable[..., Any], answer: dict[str, Any], given: dict[str, Any], words: list[str]
) -> None:
    known = {
        "__seedcore_way_inbox": {**answer, "stderr_lines": answer.get("stderr", "").splitlines()},
        "__seedcore_restoring_read": {"content": base64.b64encode(b"head-0").decode()},
    }
    faults = " ".join(variable("__seedcore_way_faults", "seedcore", known=known, **given))

    assert [word for word in words if word not in faults] == []
    assert bool(words) == bool(faults)
