#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: create and update directories, files and links, many in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Create and update directories, files and links, many in one task
version_added: 0.1.0
description:
  - Does for many paths in one task what M(ansible.builtin.file) and M(ansible.builtin.copy) do for one path.
  - Writes a file beside its place and then renames it, with its owner and mode, so that nobody reads a partial file.
  - As root it follows no link anywhere in a path that another user could have made.
options:
  files:
    description: Wanted paths, in the order in which they are created; a directory must come before its content.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The path.
        type: path
        required: true
      state:
        description:
          - V(absent) removes a file or a link; directories are never removed.
          - V(attributes) sets owner, group and mode of a file that another program has written.
        type: str
        choices: [file, directory, link, absent, attributes]
        default: file
      content:
        description: Text of a file; required for a file.
        type: str
      target:
        description: Target of a link; required for a link.
        type: str
      owner:
        description: Owner of a file or a directory; by default it is kept.
        type: str
      group:
        description: Group of a file or a directory; by default it is kept.
        type: str
      mode:
        description: Mode as octal text; required for a file or a directory.
        type: str
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Reports what would be created or changed.}
  diff_mode: {support: full, description: "Shows each difference, before and after. Do not use it with secrets."}
"""

EXAMPLES = r"""
- name: Write the files
  seedcore.cluster.managed_files:
    files:
      - {path: /opt/seedcore, state: directory, owner: root, group: ray, mode: "0750"}
      - {path: /opt/seedcore/ray.env, content: "RAY_ADDRESS=10.0.0.1:6379\n", group: ray, mode: "0640"}
      - {path: /opt/seedcore/current, state: link, target: releases/2}
      - {path: /opt/seedcore/old.env, state: absent}
"""

RETURN = r"""
different:
  description: Paths that were created, changed or removed, or would be.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import paths


def found(entry: dict[str, Any]) -> paths.State | str:
    """Return the state of a path, or why it cannot be read. A link to a directory counts as a directory."""
    try:
        return paths.look(Path(entry["path"]), follow=entry["state"] == "directory")
    except OSError as error:
        return str(
            error.strerror if isinstance(error, paths.UntrustedLinkError) else f"{entry['path']}: {error.strerror}"
        )


def fault(entry: dict[str, Any], now: paths.State, *, check: bool) -> str:
    """Return why an entry cannot be created: a missing option, or another file in its place."""
    missing = [name for name in paths.NEEDS[entry["state"]] if entry[name] is None]
    if missing:
        return f"{entry['path']}: a {entry['state']} needs {' and '.join(missing)}"
    if entry["mode"] is not None and not (entry["mode"].isdigit() and set(entry["mode"]) <= set("01234567")):
        return f'{entry["path"]}: mode is {entry["mode"]!r}, expected octal text such as "0640"'
    if entry["state"] == "attributes":
        return (
            ""
            if now.kind == "file" or (check and now.kind == "absent")
            else f"{entry['path']} is {now.kind}, not a file"
        )
    is_directory = entry["state"] == "directory"
    if now.kind == "something else" or (now.kind != "absent" and (now.kind == "directory") != is_directory):
        return f"{entry['path']} is a {now.kind}, but the wanted state is {entry['state']}: move it away"
    return ""


def make(module: AnsibleModule, entry: dict[str, Any], then: paths.State) -> None:
    """Bring one path into its wanted state."""
    path = Path(entry["path"])
    try:
        if then.kind == "absent":
            paths.remove(path)
        elif entry["state"] == "attributes":
            paths.set_attributes(path, then)
        else:
            paths.put(path, then)
    except OSError as error:
        module.fail_json(msg=f"cannot create the {then.kind} {path}: {error.strerror}")
    except LookupError as error:
        module.fail_json(msg=f"cannot create the {then.kind} {path}: {error}")


def difference(path: str, now: paths.State, then: paths.State) -> dict[str, str]:
    """Return the diff of one path."""
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
