#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: record the state of a host after a run, and compare the host with the record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_record
short_description: Record the state in which a run leaves a host, or compare the host with the record
version_added: 0.1.0
description:
  - At the end of a run, records the fingerprint of its inputs and the state of the host - files with owner, mode and a
    digest of their content, links, services. Entries of O(wanted) are recorded as wanted; the run fails if the host
    differs from them.
  - At the start of the next run, reports on the screen what differs now. If nothing does, and the fingerprint is the
    same, that run has nothing to do on this host.
  - A partial run (C(--limit), C(--tags), C(--skip-tags), C(--start-at-task), C(--step)) records nothing.
options:
  path:
    description: File for the record; only its owner can read it.
    type: path
    required: true
  prefix:
    description: Directory of the deployment. If another run holds its lock, that is a difference, too.
    type: path
  state:
    description: V(compared) compares the host with the record, V(present) writes the record.
    type: str
    choices: [compared, present]
    default: compared
  fingerprint:
    description: Digest of all inputs of the run, secrets included; it is not logged.
    type: str
    required: true
  parts:
    description:
      - Digests of the inputs of parts of the run, by name. A part whose digest is recorded has nothing to do on this
        host, if nothing differs.
    type: dict
    default: {}
  trees:
    description: Directories to compare with all of their content, including files that are added later.
    type: list
    elements: path
    default: []
  paths:
    description: Other files, links and directories; a directory without its content.
    type: list
    elements: path
    default: []
  wanted:
    description: Files that the run has made, as passed to M(seedcore.cluster.managed_files).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The path.
        type: path
        required: true
      state:
        description: Kind of the entry.
        type: str
        choices: [file, directory, link, absent, attributes]
        default: file
      content:
        description: Text of a file.
        type: str
      target:
        description: Target of a link.
        type: str
      owner:
        description: Its owner.
        type: str
      group:
        description: Its group.
        type: str
      mode:
        description: Its mode, as octal text.
        type: str
  services:
    description: Services that run, units of systemd or programs of supervisord.
    type: list
    elements: str
    default: []
  socket:
    description: Socket of supervisord, for services without a unit.
    type: path
  user:
    description: The user that the services run as.
    type: str
  also:
    description: Differences that the caller has found; reported as well, if the fingerprint is the same.
    type: list
    elements: str
    default: []
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Records nothing.}
  diff_mode: {support: none, description: The record is not part of the host's state.}
"""

EXAMPLES = r"""
- name: Compare the host with the record of the last run
  seedcore.cluster.deployment_record:
    path: /opt/seedcore/.applied
    fingerprint: 5d41402abc4b2a76b9719d911017c592

- name: Record the state of the host
  seedcore.cluster.deployment_record:
    path: /opt/seedcore/.applied
    state: present
    fingerprint: 5d41402abc4b2a76b9719d911017c592
    trees: [/opt/seedcore/etc]
    services: [ray]
"""

RETURN = r"""
found:
  description: Whether there is a record of a green run.
  returned: state is V(compared)
  type: bool
made_from_the_same:
  description: Whether the record has this fingerprint.
  returned: success
  type: bool
same_parts:
  description: Names of O(parts) that have nothing to do; none if anything differs from the record.
  returned: success
  type: list
  elements: str
recorded:
  description: Whether a record was written.
  returned: success
  type: bool
different:
  description: Differences, one line each, without the content of any file.
  returned: success
  type: list
  elements: str
"""

import hashlib
import http.client
import json
import os
import pwd
import subprocess
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import lock, paths, processes
from ansible_collections.seedcore.cluster.plugins.module_utils.supervisord import Supervisord

FORMAT = 3
UNITS = "/etc/systemd/system"
COMMAND_TIMEOUT_S = 30
# Kind, owner and mode in the description of a file or a directory.
_ATTRIBUTES = 3
# Properties of a unit that runs as configured and starts after a reboot.
_RUNS = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
# Variable in the unit's environment with a digest of the unit (roles/service).
DEFINITION = b"SERVICE_DEFINITION="


def wanted_options() -> dict[str, Any]:
    """Return the options of a wanted path; its content may contain keys, which must not get into the host's journal."""
    return {**paths.OPTIONS, "content": {"type": "str", "no_log": True}}


def shown(state: paths.State) -> list[str]:
    """Return a description in one line for people, and a digest of the text, which is never shown."""
    return [state.attributes(), hashlib.sha256(state.text.encode()).hexdigest()]


def seen(path: Path) -> list[str]:
    """Return the description of a path."""
    try:
        return shown(paths.look(path))
    except OSError as error:
        return [f"not readable ({error.strerror})", ""]


def as_wanted(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the wanted description of each path."""
    found = {}
    for entry in entries:
        path = Path(entry["path"])
        try:
            now = paths.look(path, follow=entry["state"] == "directory")
        except OSError:
            now = paths.State("absent")
        then = paths.wanted(entry, now)
        if then.kind == "absent" and entry["state"] == "attributes":
            found[str(path)] = ["file", ""]
            continue
        found[str(path)] = shown(then)
    return found


def everything_in(tree: Path) -> Iterator[Path]:
    """Return a directory and its content, except Python's caches; do not follow links."""
    yield tree
    if tree.is_dir() and not tree.is_symlink():
        for path in sorted(tree.iterdir()):
            if path.name != "__pycache__":
                yield from everything_in(path)


def files(trees: list[str], others: list[str]) -> dict[str, list[str]]:
    """Return the descriptions of everything in directories and at other paths, by path."""
    found = {str(path): seen(path) for tree in trees for path in everything_in(Path(tree))}
    return found | {other: seen(Path(other)) for other in others}


def account(user: str | None) -> list[str]:
    """Return the account of a user on this host; empty if there is none."""
    try:
        entry = pwd.getpwnam(user or "")
    except KeyError:
        return []
    return [str(entry.pw_uid), str(entry.pw_gid), entry.pw_dir, entry.pw_shell]


def units(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of units; raise OSError if systemd does not answer."""
    if not names:
        return {}
    asked = [f"--property={name}" for name in (*_RUNS, "DropInPaths", "MainPID")]
    # The units of a deployment are either all system units or all units of the user who runs this.
    scope = "--system" if Path(UNITS, f"{names[0]}.service").exists() else "--user"
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    command = ["systemctl", scope, "show", *asked, "--", *(f"{name}.service" for name in names)]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S, env=environment
    )
    blocks = done.stdout.strip().split("\n\n")
    if done.returncode or len(blocks) != len(names):
        raise OSError(f"systemd does not answer: {done.stderr.strip()}")
    said = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    # Python 3.9, which ansible-core allows on a host, has no strict=True; the lengths are equal, see above.
    return dict(zip(names, said))  # noqa: B905


def started_from(unit: dict[str, str]) -> str:
    """Return from what a unit's process was started: its own definition and the drop-ins of others."""
    digest = hashlib.sha256()
    for entry in processes.environment(int(unit.get("MainPID") or 0)):
        if entry.startswith(DEFINITION):
            digest.update(entry)
    for path in unit.get("DropInPaths", "").split():
        digest.update(path.encode() + b"\0" + paths.look(Path(path)).text.encode())
    return digest.hexdigest()


def definitions(names: list[str]) -> dict[str, str]:
    """Return from what each unit's process was started."""
    return {name: started_from(unit) for name, unit in units(names).items()}


def unit_faults(names: list[str], then: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong with recorded systemd units."""
    try:
        now = units(names)
        other = [name for name, unit in now.items() if (then or {}).get(name) not in (None, started_from(unit))]
    except OSError as error:
        return [str(error)]
    faults = [
        f"service {name}: {key} is {unit.get(key)}"
        for name, unit in now.items()
        for key, good in _RUNS.items()
        if unit.get(key) != good
    ]
    added = {name: f" and {now[name]['DropInPaths']}" for name in other if now[name].get("DropInPaths")}
    return faults + [f"service {name}: was started from another unit{added.get(name, '')}" for name in other]


def program_faults(names: list[str], socket: str | None) -> list[str]:
    """Return what is wrong with programs of supervisord."""
    faults = []
    for name in names:
        try:
            state = (Supervisord(socket or "").info(name) or {}).get("statename", "not known")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            state = f"not known: {error}"
        if state != "RUNNING":
            faults.append(f"service {name}: is {state}")
    return faults


def described(params: dict[str, Any]) -> dict[str, Any]:
    """Return the record."""
    given = {name: params[name] for name in ("fingerprint", "trees", "paths", "services", "socket", "user")}
    given["paths"] = sorted({*params["paths"], *(entry["path"] for entry in params["wanted"])})
    found = {**files(params["trees"], given["paths"]), **as_wanted(params["wanted"])}
    return {
        "format": FORMAT, **given, "parts": params["parts"], "account": account(params["user"]), "files": found,
        "definitions": definitions(with_units(params["services"])),
    }  # fmt: skip


def with_units(names: list[str]) -> list[str]:
    """Return the services that systemd runs; supervisord runs the others."""
    places = [Path(UNITS), Path.home() / ".config/systemd/user"]
    return [name for name in names if any((place / f"{name}.service").exists() for place in places)]


def read(path: Path) -> dict[str, Any]:
    """Return the record; nothing if it is missing, broken, or of another version."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("format") == FORMAT else {}


def same_parts(document: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Return the names of the parts that are recorded with the same digest."""
    recorded = document.get("parts") or {}
    return sorted(name for name, digest in parts.items() if recorded.get(name) == digest)


def unlike(path: str, now: list[str], then: list[str]) -> str:
    """Return how a path differs from its wanted state."""
    is_, was = now[0].split(), then[0].split()
    if now[0] == then[0]:
        return f"{path}: its content differs"
    if len(is_) != len(was) or len(was) != _ATTRIBUTES or is_[0] != was[0]:
        return f"{path}: {now[0]}, wanted {then[0]}"
    pairs = zip(("owner", "mode"), is_[1:], was[1:])  # noqa: B905 - both have two; hosts with Python 3.9 know no strict
    return f"{path}: " + ", ".join(f"{what} {here}, wanted {there}" for what, here, there in pairs if here != there)


def differences(document: dict[str, Any]) -> list[str]:
    """Return the differences."""
    then, now = document["files"], files(document["trees"], document["paths"])
    absent = ["absent", ""]
    different = [
        unlike(path, is_, was)
        for path in sorted({*then, *now})
        if (was := then.get(path, absent)) != (is_ := now.get(path, absent))
    ]
    if document["account"] != account(document["user"]):
        different.append(f"user {document['user']}: the account has changed")
    of_systemd = with_units(document["services"])
    programs = [name for name in document["services"] if name not in of_systemd]
    return (
        different + unit_faults(of_systemd, document.get("definitions")) + program_faults(programs, document["socket"])
    )


def main() -> None:
    """Run the module."""
    lists = {name: {"type": "list", "elements": "path", "default": []} for name in ("trees", "paths")}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "prefix": {"type": "path"},
            "state": {"type": "str", "choices": ["compared", "present"], "default": "compared"},
            "fingerprint": {"type": "str", "required": True, "no_log": True},
            "parts": {"type": "dict", "default": {}, "no_log": True},
            "wanted": {"type": "list", "elements": "dict", "default": [], "options": wanted_options()},
            "services": {"type": "list", "elements": "str", "default": []},
            "socket": {"type": "path"},
            "user": {"type": "str"},
            "also": {"type": "list", "elements": "str", "default": []},
            **lists,
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    if module.params["state"] == "compared":
        document = read(path)
        different = differences(document) if document else []
        if module.params["prefix"] and lock.is_held(module.params["prefix"]):
            different.append("another run works on the deployment")
        same = document.get("fingerprint") == module.params["fingerprint"]
        if same:
            different += module.params["also"]
        parts = [] if different else same_parts(document, module.params["parts"])
        module.exit_json(
            changed=False,
            found=bool(document),
            recorded=False,
            made_from_the_same=same,
            different=different,
            same_parts=parts,
        )
    if not module.check_mode:
        try:
            document = described(module.params)
        except OSError as error:
            module.fail_json(msg=f"cannot examine the host: {error}")
        if unwanted := differences({**document, "services": []}):
            module.fail_json(msg="the host differs from the wanted state: " + "; ".join(unwanted), different=unwanted)
        try:
            paths.put(path, paths.State("file", json.dumps(document, indent=1, sort_keys=True) + "\n"))
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error.strerror}")
    # The record is not part of the host's state, so writing it is not a change.
    recorded = not module.check_mode
    module.exit_json(
        changed=False,
        recorded=recorded,
        made_from_the_same=True,
        different=[],
        same_parts=sorted(module.params["parts"]),
    )


if __name__ == "__main__":
    main()
