"""Render all variables, templates, arguments and conditions of the roles without a host.

The module runs as a program: each line on stdin is a JSON document with extra variables (``-e``), and a line on stdout
is the result, by place. It runs in a separate process, because Ansible's collection loader cannot be unloaded.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROLES = ("deployment", "monitoring", "ray", "seedcore", "seedcore_bootstrap", "seedcore_gate", "service")
HEAD, WORKER = "head-1", "worker-1"
INVENTORY = f"[ray_head]\n{HEAD}\n[ray_workers]\n{WORKER}\n[monitoring]\n{HEAD}\n"
STAT = {"stat": {"exists": True, "mtime": 1.0, "checksum": "0" * 64, "lnk_source": "/opt/seedcore/releases/1-a"}}
REPORT = {
    "asked": 0.0, "node_ip": "10.0.0.1", "not_local": "", "time": 0.0, "system": "Linux", "machine": "x86_64",
    "libc": "glibc", "memory_mib": 8000, "hostname": "h", "unresolved": "", "unreachable": "", "python": "3.11.7",
    "implementation": "CPython", "python_path": "/usr/bin/python3.11",
    "closed_prefix": "", "closed_python": "", "venv": True, "certificates": True, "nftables": True, "nft_chains": [],
    "user_namespaces": True,
    "disk_mib": 9000, "shm_mib": 4000, "writable": True, "parent": "/opt", "complete": [],
    "installed": ["ray/old", "cache/wheelhouse-old"],
    "units": {}, "owner": "ray", "runtime_revisions": {},
    "foreign": False, "mark": "made user: ray", "has_state": False,
}  # fmt: skip
STATUS = {
    "healthy": True, "degraded": False, "status": "healthy", "reason": "ready", "message": "m", "nodes": {"alive": 2},
    "coordinator": {"release": "r", "pid": 1, "nodes": {"list": []}, "organs": []},
}  # fmt: skip
FACTS = {
    "default_ipv4": {"address": "10.0.0.1"}, "python": {"executable": "/usr/bin/python3", "version": {"major": 3}},
    "service_mgr": "systemd", "user_id": "me", "user_uid": 1000, "user_gid": 1000, "all_ipv4_addresses": ["10.0.0.1"],
    "all_ipv6_addresses": [],
}  # fmt: skip
# Facts that earlier tasks have registered.
KNOWN = {
    "deployment_host_report": {"stdout": json.dumps(REPORT)},
    "__ray_placed": {"different": [], "changed": False},
    "__ray_port_holders": {"faults": []}, "__ray_firewall_table_shown": {"rc": 0, "stdout": ""},
    "__ray_token_stat": STAT, "__ray_token_given": {"changed": False}, "__ray_token_made": {"changed": False},
    "__ray_token_taken": {"changed": False}, "__ray_head_token": {"content": "eA=="},
    "__ray_head_token_stat": STAT, "__ray_wheelhouse": STAT, "ray_fingerprint": "f", "ray_made": [],
    "ray_wanted_files": [], "ray_differences": [], "deployment_record_wanted": [],
    "__ray_drain": {"node_id": "n"}, "deployment_present": {"marked": True, "foreign": False, "mark": "made user: ray"},
    "__ray_processes": {"processes": []},
    "__service_private_users": {"rc": 0},
    "__service_started": {"status": {"MainPID": "7"}}, "__service_environ": {"content": ""},
    "__service_there": STAT, "__service_unit_stat": STAT,
    "seedcore_release": "1-a", "seedcore_agents": "1-a.b", "seedcore_environment_ids": {"vision": "vision-c"},
    "__seedcore_source": {
        "version": "1", "digest": "d", "extra_digest": "x", "package": "p.whl", "extra": ["e"],
        "extra_wheels": ["e.whl"], "extra_lock": "e==1", "dest": "/d",
        "environments": {"vision": {"digest": "v", "extra": ["v"], "wheels": ["v.whl"], "lock": "v==1"}},
        "wheels": ["p.whl"],
        "requirements": "", "lock": "lock.txt",
    },
    "__seedcore_pruned": {"kept": ["ray/old"]},
    "__seedcore_moved": {"stdout": json.dumps(STATUS), "rc": 0}, "__seedcore_fingerprint": "f",
    "__seedcore_parts": {"services": "f"},
    "deployment_recorded": {"made_from_the_same": True, "different": [], "same_parts": ["services"]},
    "seedcore_unchanged": False, "seedcore_host_unchanged": True,
    "__seedcore_moved_until": 1.0, "__monitoring_until": 1.0,
    "seedcore_drained_node": WORKER, "seedcore_vacated_node": WORKER, "seedcore_vacated_nodes": [WORKER],
    "seedcore_gate_report": STATUS,
    "__seedcore_gate": STATUS, "__seedcore_gate_current": STAT,
    "__seedcore_gate_network": {"rc": 0, "stdout": "{}", "stderr_lines": []}, "__seedcore_bootstrap": STATUS,
    "__monitoring_program": STAT, "__monitoring_mark": STAT, "__monitoring_present": STAT,
    "__monitoring_token": {"content": "eA=="}, "__monitoring_token_stat": STAT, "__monitoring_package": {},
    "__monitoring_targets": {"status": 200, "json": {"data": {"activeTargets": []}}},
    "service_differs": False, "__service_journal": {"stdout_lines": []},
    "ansible_check_mode": False, "ansible_play_hosts": [HEAD, WORKER], "ansible_play_hosts_all": [HEAD, WORKER],
    "__ray_service_step": "main", "__ray_package": "nftables",
}  # fmt: skip
LOOP = {"item": {"path": "/p", "mode": "0644"}}
SERVICE = {"service_name": "s", "service_prefix": "/opt/s", "service_command": ["/bin/true"]}
FIELDS = ("args", "environment", "changed_when", "failed_when", "until", "retries", "delay", "timeout", "loop")


def main() -> None:
    """Answer each line on stdin with a line on stdout."""
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415 - only as a program

    init_plugin_loader([str(ROOT / "collections")])
    _do_nothing_twice()
    for line in sys.stdin:
        asked = json.loads(line)
        renderer = Renderer(
            asked["extra"], asked.get("facts") or {}, asked.get("known") or {}, asked.get("roles") or ROLES
        )
        for name, given in (asked.get("inventory") or {}).items():
            for key, value in given.items():
                renderer.inventory.get_host(name).set_variable(key, value)
        only = asked.get("only")
        renderer.steps = asked.get("steps")
        sys.stdout.write(json.dumps(renderer.one(only, asked["host"]) if only else renderer.everything()) + "\n")
        sys.stdout.flush()


def _do_nothing_twice() -> None:
    """Avoid most of the cost of rendering: copies of strings, and compiling the same templates for each task.

    Ansible copies each file that it has read, and all variables for each template, including every string and its tags.
    """
    from types import SimpleNamespace  # noqa: PLC0415

    from ansible._internal._templating._jinja_bits import _TemplateCompileContext  # noqa: PLC0415
    from ansible.module_utils._internal._datatag import AnsibleTagHelper  # noqa: PLC0415
    from ansible.parsing import dataloader  # noqa: PLC0415
    from ansible.plugins.loader import lookup_loader  # noqa: PLC0415
    from jinja2 import Environment  # noqa: PLC0415

    compile_anew, compiled = Environment.compile, {}

    def compile_once(self: Any, source: Any, *arguments: Any) -> Any:
        if not isinstance(source, str):
            return compile_anew(self, source, *arguments)
        context = _TemplateCompileContext.current(optional=True)
        options = (self.variable_start_string, self.block_start_string, self.trim_blocks, self.keep_trailing_newline)
        key = (str(source), *arguments, context and context.escape_backslashes, *options)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, *arguments)
        return compiled[key]

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return AnsibleTagHelper.tag_copy(value, {key: copied(entry) for key, entry in value.items()})
        if isinstance(value, list):
            return AnsibleTagHelper.tag_copy(value, [copied(entry) for entry in value])
        return value

    Environment.compile = compile_once  # type: ignore[method-assign, assignment]
    dataloader.copy = SimpleNamespace(deepcopy=copied)
    sys.modules[type(lookup_loader.get("ansible.builtin.template")).__module__].deepcopy = copied  # type: ignore[attr-defined]


class Renderer:
    """Ansible's template engine with hosts whose facts are given, without a connection to them."""

    def __init__(
        self, extra: dict[str, Any], facts: dict[str, Any], known: dict[str, Any], roles: list[str] | tuple[str, ...]
    ) -> None:
        from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
        from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
        from ansible.template import trust_as_template  # noqa: PLC0415
        from ansible.vars.hostvars import HostVars  # noqa: PLC0415
        from ansible.vars.manager import VariableManager  # noqa: PLC0415

        self.loader = DataLoader()
        self.loader.set_basedir(str(ROOT))
        with asked_inventory() as path:
            self.inventory = InventoryManager(loader=self.loader, sources=[path])
        self.variables = VariableManager(loader=self.loader, inventory=self.inventory)
        self.variables._extra_vars = {key: _trusted(value, trust_as_template) for key, value in extra.items()}
        HostVars(self.inventory, self.variables, self.loader)
        for host in (HEAD, WORKER):
            self.variables.set_host_facts(host, {**FACTS, **facts})
            self.variables.set_nonpersistent_facts(host, {**KNOWN, **known})
        self.roles = roles
        self.steps: list[str] | None = None
        self.known = {**KNOWN, **known}

    def everything(self) -> dict[str, Any]:
        """Return the rendered value of each place on each host; for an error, its text."""
        found: dict[str, Any] = {}
        for role in self.roles:
            for name in (HEAD, WORKER) if role in {"deployment", "ray"} else (HEAD,):
                variables: dict[str, Any] = {}
                for place, task, variables in self._tasks(role, name):
                    found.update({f"{place}: {key}": value for key, value in self._task(task, variables).items()})
                # A caller that names some steps wants only their values, not the private variables.
                private = {} if self.steps else self._private(role, variables)
                found.update({f"{name}: {role}: {key}": value for key, value in private.items()})
        return found

    def one(self, variable: str, host: str) -> dict[str, Any]:
        """Return one variable of the role on one host."""
        from ansible.template import Templar  # noqa: PLC0415

        _place, _task, variables = next(self._tasks(self.roles[0], host, most=1))
        return {variable: _tried(Templar(self.loader, variables=variables).template, variables[variable])}

    def _tasks(self, role: str, name: str, *, most: int | None = None) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Yield every task of a role (or of its first ``most`` files) once, with its place and its variables."""
        from ansible.playbook.play import Play  # noqa: PLC0415

        steps = self.steps or [path.stem for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml"))][:most]
        # The first three are included for their variables.
        wanted = [
            ("ray", "layout"),
            ("seedcore", "layout"),
            ("seedcore_gate", "main"),
            *((role, step) for step in steps),
        ]
        imports = [
            {"name": f"seedcore.cluster.{name}", "tasks_from": tasks, "rolespec_validate": False}
            for name, tasks in wanted
        ]
        document = {
            "name": role, "hosts": "all", "gather_facts": False,
            "tasks": [{"name": role, "ansible.builtin.import_role": include} for include in imports],
        }  # fmt: skip
        play = Play().load(document, variable_manager=self.variables, loader=self.loader)
        host = self.inventory.get_host(name)
        seen: set[str] = set()
        for block in play.compile():
            for task in _flat(block):
                path = task.get_path()
                if path in seen or f"/roles/{role}/" not in path:
                    continue
                seen.add(path)
                known = {key: value for key, value in self.known.items() if key not in task.vars}
                variables = self.variables.get_vars(play=play, host=host, task=task)
                place = f"{name}: {role}/{Path(path.rpartition(':')[0]).stem}: {task.name}"
                yield place, task, {**SERVICE, **variables, **known, **LOOP}

    def _task(self, task: Any, variables: dict[str, Any]) -> dict[str, Any]:
        from ansible.template import Templar  # noqa: PLC0415

        templar = Templar(self.loader, variables=variables)
        found: dict[str, Any] = {}
        for number, condition in enumerate(task.when):
            found[f"when {number}"] = _tried(templar.evaluate_conditional, condition)
        for field in FIELDS:
            value = getattr(task, field, None)
            if value not in (None, [], {}):
                found[field] = _tried(templar.template, value)
        for name, value in task.vars.items():
            found[f"variable {name}"] = _tried(templar.template, value)
        return found

    def _private(self, role: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Render the private variables of a role."""
        from ansible.template import Templar  # noqa: PLC0415

        templar = Templar(self.loader, variables=variables)
        # The role deployment defines variables named deployment_* for the other roles.
        own = (f"__{role}_", "deployment_") if role == "deployment" else (f"__{role}_",)
        given = {*self.known, *self.variables._extra_vars}
        names = [name for name in variables if name.startswith(own) and name not in given]
        return {name: _tried(templar.template, variables[name]) for name in names}


@contextlib.contextmanager
def asked_inventory() -> Iterator[str]:
    """Write the inventory to a file for a moment, and yield its path."""
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as stream:
        stream.write(INVENTORY)
        stream.flush()
        yield stream.name


def _trusted(value: Any, trust: Any) -> Any:
    if isinstance(value, dict):
        return {key: _trusted(entry, trust) for key, entry in value.items()}
    if isinstance(value, list):
        return [_trusted(entry, trust) for entry in value]
    return trust(value) if isinstance(value, str) else value


def _flat(block: Any) -> Iterator[Any]:
    for entry in [*block.block, *block.rescue, *block.always]:
        if hasattr(entry, "block"):
            yield from _flat(entry)
        else:
            yield entry


def _tried(render: Any, value: Any) -> Any:
    try:
        return json.loads(json.dumps(render(value), default=str))
    except Exception as error:
        return f"FAULT {type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
