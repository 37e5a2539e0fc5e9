#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: directories, files and links, many at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Make directories, files and links what they shall be, many in one go
version_added: 0.1.0
description:
  - What M(ansible.builtin.file) and M(ansible.builtin.copy) do for one path, for many of them in one go.
  - A file is written beside its place and then put there, with its owner and mode, so that nobody reads half of one.
  - As root it follows no link, anywhere in a path, that another user could have made.
options:
  files:
    description: What there shall be, in the order in which it is made. Whatever is below a directory comes after it.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      state:
        description:
          - V(absent) removes a file or a link; directories are never removed.
          - V(attributes) gives a file that something else has written its owner, group and mode.
        type: str
        choices: [file, directory, link, absent, attributes]
        default: file
      content:
        description: Text of a file; needed for one.
        type: str
      target:
        description: Where a link leads; needed for one.
        type: str
      owner:
        description: Who owns a file or a directory. Without it that stays as it is.
        type: str
      group:
        description: Its group. Without it that stays as it is.
        type: str
      mode:
        description: Its mode, as octal text; needed for a file or a directory.
        type: str
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Says what would be made or changed.}
  diff_mode: {support: full, description: Shows each that differs before and after. It is not for secrets.}
"""

EXAMPLES = r"""
- name: The files exist
  seedcore.cluster.files:
    files:
      - {path: /opt/seedcore, state: directory, owner: root, group: ray, mode: "0750"}
      - {path: /opt/seedcore/ray.env, content: "RAY_ADDRESS=10.0.0.1:6379\n", group: ray, mode: "0640"}
      - {path: /opt/seedcore/current, state: link, target: releases/2}
      - {path: /opt/seedcore/old.env, state: absent}
"""

RETURN = r"""
different:
  description: The paths that were made, changed or removed, or would be.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import paths


def found(entry: dict[str, Any]) -> paths.State | str:
    """Look what is at a path, or say why nobody can. A link that leads to a directory is good for one."""
    try:
        return paths.look(Path(entry["path"]), follow=entry["state"] == "directory")
    except OSError as error:
        return str(
            error.strerror if isinstance(error, paths.UntrustedLinkError) else f"{entry['path']}: {error.strerror}"
        )


def fault(entry: dict[str, Any], now: paths.State, *, check: bool) -> str:
    """Say why an entry cannot be: what it lacks, or what is in its place."""
    missing = [name for name in paths.NEEDS[entry["state"]] if entry[name] is None]
    if missing:
        return f"{entry['path']}: a {entry['state']} needs {' and '.join(missing)}"
    if entry["mode"] is not None and not (entry["mode"].isdigit() and set(entry["mode"]) <= set("01234567")):
        return f'{entry["path"]}: mode is {entry["mode"]!r}, expected octal text such as "0640"'
    if entry["state"] == "attributes":
        return (
            "" if now.kind == "file" or (check and now.kind == "absent") else f"{entry['path']} is {now.kind}, no file"
        )
    is_directory = entry["state"] == "directory"
    if now.kind == "something else" or (now.kind != "absent" and (now.kind == "directory") != is_directory):
        return f"{entry['path']} is a {now.kind}, and would have to be a {entry['state']}: move it away"
    return ""


def make(module: AnsibleModule, entry: dict[str, Any], then: paths.State) -> None:
    """Make one path what it shall be."""
    path = Path(entry["path"])
    try:
        if then.kind == "absent":
            paths.remove(path)
        elif entry["state"] == "attributes":
            paths.set_attributes(path, then)
        else:
            paths.put(path, then)
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be made a {then.kind}: {error.strerror}")
    except LookupError as error:
        module.fail_json(msg=f"{path} cannot be made a {then.kind}: {error}")


def difference(path: str, now: paths.State, then: paths.State) -> dict[str, str]:
    """Return what Ansible shows of one path."""
    shown = {"before_header": f"{path} ({now.attributes()})", "after_header": f"{path} ({then.attributes()})"}
    if now.text == then.text:
        return {**shown, "before": f"{now.attributes()}\n", "after": f"{then.attributes()}\n"}
    return {**shown, "before": now.text, "after": then.text}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": paths.OPTIONS}},
        supports_check_mode=True,
    )
    looked = [(entry, found(entry)) for entry in module.params["files"]]
    faults = [now for _entry, now in looked if isinstance(now, str)]
    entries = [(entry, now) for entry, now in looked if isinstance(now, paths.State)]
    faults += [message for entry, now in entries if (message := fault(entry, now, check=module.check_mode))]
    if faults:
        module.fail_json(msg="\n".join(faults))
    different, shown = [], []
    for entry, now in entries:
        then = paths.wanted(entry, now)
        if now == then:
            continue
        different.append(entry["path"])
        if not module.check_mode:
            make(module, entry, then)
        shown.append(difference(entry["path"], now, then))
    module.exit_json(changed=bool(different), different=different, diff=shown)


if __name__ == "__main__":
    main()
