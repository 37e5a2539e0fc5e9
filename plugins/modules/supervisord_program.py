#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: run one program under supervisord."""

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisord_program
short_description: Run one program under supervisord
version_added: 0.1.0
description:
  - Starts supervisord if it does not run, and the program if it does not run; restarts the program only if its
    configuration differs from the one with which it runs. The next run therefore completes an interrupted one.
  - With O(state=stopped) it stops the program, which supervisord then starts only when it is told to.
  - With O(state=absent) it stops the program, and supervisord together with its last program.
options:
  name:
    description: Name of the program.
    type: str
    required: true
  state:
    description: The wanted state.
    type: str
    choices: [started, stopped, absent]
    default: started
  config:
    description: supervisord's configuration file.
    type: path
    required: true
  socket:
    description: supervisord's socket, the same as in the configuration file.
    type: path
    required: true
  executable:
    description: Path of supervisord. It gets a clean environment, so no variable of the caller reaches the services.
    type: path
    required: true
  log:
    description: Log file whose end is shown if the program does not run.
    type: path
  nofile:
    description: Limit of open files for the programs of supervisord, at most the hard limit.
    type: int
    default: 65536
  timeout:
    description: Deadline in seconds.
    type: float
    default: 60
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Starts and stops nothing.}
"""

EXAMPLES = r"""
- name: Run Ray
  seedcore.cluster.supervisord_program:
    name: seedcore-ray
    config: /opt/seedcore/etc/supervisord.conf
    socket: /opt/seedcore/run/supervisor.sock
    executable: /opt/seedcore/tools/bin/supervisord
    timeout: 30
"""

RETURN = r"""
actions:
  description: The actions, in order.
  returned: always
  type: list
  elements: str
pid:
  description: Process id of the program.
  returned: if it runs
  type: int
"""

import os
import resource
import signal
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import logs, processes, status
from ansible_collections.seedcore.cluster.plugins.module_utils.supervisord import BAD_NAME, Supervisord

INTERVAL_S = 0.1
ORPHAN_TIMEOUT_S = 10.0
LAST_WORDS = 6
# Fault code of supervisor's XML-RPC interface.
ALREADY_STARTED = 60
DOWN = ("STOPPED", "EXITED", "FATAL")
INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProgramError(Exception):
    """The wanted state was not reached; the text describes the last state."""


def until(predicate: Callable[[], bool], *, deadline: float) -> bool:
    """Poll at least once, until the condition holds or the deadline (monotonic seconds) has passed."""
    while not predicate():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        time.sleep(min(INTERVAL_S, remaining))
    return True


def launch(executable: str, config: str, nofile: int) -> None:
    """Start supervisord in the background, with a clean environment."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = nofile if hard == resource.RLIM_INFINITY else min(nofile, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    done = subprocess.run(  # noqa: S603 - the program of the deployment
        [executable, "--configuration", config],
        env={"PATH": PATH, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProgramError(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")


def end_orphans(path: str) -> None:
    """End the processes of a killed supervisord, which would hold the ports and locks of the new ones.

    supervisord gives its socket to everything it starts.

    Raises:
        ProgramError: A process does not end.
    """
    running = processes.everything()
    orphans = [running[pid] for pid in processes.carrying(f"SUPERVISOR_SERVER_URL=unix://{path}", running)]
    if stuck := processes.end(orphans, timeout_s=ORPHAN_TIMEOUT_S):
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in stuck)
        raise ProgramError(f"an earlier supervisord has left processes that do not end: {names}")


def stop_group(server: Supervisord, name: str) -> None:
    """Stop a program and remove it from supervisord; wait for its stop timeout."""
    try:
        server.call("stopProcessGroup", name, False)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != BAD_NAME:
            raise


def remove_group(server: Supervisord, name: str, deadline: float) -> None:
    """Stop and remove a group.

    Raises:
        ProgramError: The program still runs at the deadline.
    """
    stop_group(server, name)

    def removed() -> bool:
        try:
            return bool(server.call("removeProcessGroup", name))
        except xmlrpc.client.Fault as fault:
            # The other possible fault is that the program still runs.
            return bool(fault.faultCode == BAD_NAME)

    if not until(removed, deadline=deadline):
        raise ProgramError(f"{name} does not stop")


def start(params: dict[str, Any], server: Supervisord, deadline: float, *, check: bool) -> list[str]:
    """Run the program with its present configuration; return the actions."""
    name, actions = params["name"], []
    if server.pid() is None:
        actions.append("start supervisord")
        if not check:
            end_orphans(params["socket"])
            launch(params["executable"], params["config"], params["nofile"])
            if not until(lambda: server.pid() is not None, deadline=deadline):
                raise ProgramError("supervisord does not answer on its socket")
    elif check:
        info = server.info(name)
        if info is None or info["statename"] in DOWN:
            actions.append(f"start {name}")
    if check:
        return actions
    return [*actions, *_converge(server, name, deadline)]


def _converge(server: Supervisord, name: str, deadline: float) -> list[str]:
    """Load the program's configuration and wait until it runs; return the actions."""
    actions = []
    added, changed, _removed = server.call("reloadConfig")[0]
    if name in changed:
        remove_group(server, name, deadline)
    if name in changed or name in added:
        server.call("addProcessGroup", name)
        actions.append(f"{'restart' if name in changed else 'start'} {name}")
    elif (server.info(name) or {}).get("statename") == "BACKOFF":
        # supervisord's next retry may be minutes away.
        stop_group(server, name)

    def running() -> bool:
        info = server.info(name)
        if info is None:
            raise ProgramError(f"supervisord has no program {name}")
        if info["statename"] in DOWN:
            _start(server, name, actions)
        return bool(info["statename"] == "RUNNING")

    if not until(running, deadline=deadline):
        info = server.info(name) or {}
        raise ProgramError(f"{name} is {info.get('statename')}: {info.get('spawnerr') or info.get('description')}")
    return actions


def _start(server: Supervisord, name: str, actions: list[str]) -> None:
    try:
        server.call("startProcess", name, False)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode == ALREADY_STARTED:
            return
        raise ProgramError(f"{name} does not start: {fault.faultString}") from fault
    if f"start {name}" not in actions:
        actions.append(f"start {name}")


def remove(params: dict[str, Any], server: Supervisord, deadline: float, *, check: bool) -> list[str]:
    """Remove the program, and stop supervisord with its last program; return the actions."""
    pid = server.pid()
    if pid is None:
        return []
    name, actions = params["name"], []
    if server.info(name) is not None:
        if not check:
            remove_group(server, name, deadline)
        actions.append(f"stop {name}")
    others = {row["group"] for row in server.call("getAllProcessInfo")} - {name}
    if others:
        return actions
    if not check:
        os.kill(pid, signal.SIGTERM)
        if not until(lambda: server.pid() is None and processes.read(pid) is None, deadline=deadline):
            raise ProgramError(f"supervisord (pid {pid}) does not stop")
    return [*actions, "stop supervisord"]


def stop(params: dict[str, Any], server: Supervisord, deadline: float, *, check: bool) -> list[str]:
    """Stop the program and keep its configuration; return the actions."""
    name = params["name"]

    def down() -> bool:
        info = server.info(name)
        return info is None or info["statename"] in DOWN

    if server.pid() is None or down():
        return []
    if not check:
        stop_group(server, name)
        if not until(down, deadline=deadline):
            raise ProgramError(f"{name} does not stop")
    return [f"stop {name}"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "config": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "executable": {"type": "path", "required": True},
            "log": {"type": "path"},
            "nofile": {"type": "int", "default": 65536},
            "timeout": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if wrong := status.minimum_faults(params, {"timeout": 0}):
        module.fail_json(msg="; ".join(wrong))
    server = Supervisord(params["socket"])
    deadline = time.monotonic() + params["timeout"]
    act = {"started": start, "stopped": stop, "absent": remove}[params["state"]]
    try:
        actions = act(params, server, deadline, check=module.check_mode)
        info = server.info(params["name"]) if server.pid() else None
    except (ProgramError, xmlrpc.client.Error, OSError) as error:
        said = logs.tail(params["log"])
        words = ["", "Its log ends with:", *said[-LAST_WORDS:]] if said else []
        module.fail_json(msg="\n".join([f"{error} (after at most {params['timeout']:g} s)", *words]), log=said)
    module.exit_json(changed=bool(actions), actions=actions, pid=(info or {}).get("pid") or None)


if __name__ == "__main__":
    main()
