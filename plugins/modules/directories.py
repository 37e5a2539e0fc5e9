#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: directories, many at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: directories
short_description: Make sure that directories exist, many in one go
version_added: 0.1.0
description:
  - What M(ansible.builtin.file) does for one directory, for many of them in one connection to the host.
options:
  directories:
    description: The directories, in the order in which they are made. One below another comes after it.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      owner:
        description: Who owns it.
        type: str
        required: true
      group:
        description: Its group.
        type: str
        required: true
      mode:
        description: Its mode, as octal text.
        type: str
        required: true
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Says what would be made or changed.}
  diff_mode: {support: full, description: Shows the state before and after of each that differs.}
"""

EXAMPLES = r"""
- name: The directories exist
  seedcore.cluster.directories:
    directories:
      - {path: /opt/seedcore, owner: root, group: ray, mode: "0750"}
      - {path: /opt/seedcore/log, owner: ray, group: ray, mode: "0700"}
"""

RETURN = r"""
different:
  description: The directories that were made or changed, or would be.
  returned: success
  type: list
  elements: str
"""

import grp
import pwd
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def found(path: Path) -> str:
    """Return what a path is, in one line."""
    if not path.exists():
        return "absent"
    state = path.stat()
    kind = "directory" if stat.S_ISDIR(state.st_mode) else "something else"
    try:
        names = (pwd.getpwuid(state.st_uid).pw_name, grp.getgrgid(state.st_gid).gr_name)
    except KeyError:
        names = (str(state.st_uid), str(state.st_gid))
    return f"{kind} {names[0]}:{names[1]} {stat.S_IMODE(state.st_mode):04o}"


def wanted(directory: dict[str, Any]) -> str:
    """Return what it shall be, in the same words."""
    return f"directory {directory['owner']}:{directory['group']} {int(directory['mode'], 8):04o}"


def make(module: AnsibleModule, directory: dict[str, Any]) -> None:
    """Make one directory what it shall be."""
    path = Path(directory["path"])
    try:
        # Closed until it has its owner.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be made: {error.strerror}")
    attributes = {
        "path": str(path),
        "owner": directory["owner"],
        "group": directory["group"],
        "mode": directory["mode"],
    }
    module.set_fs_attributes_if_different(module.load_file_common_arguments(attributes), changed=False)


def main() -> None:
    """Run the module."""
    one = {name: {"type": "str", "required": True} for name in ("owner", "group", "mode")}
    options = {"path": {"type": "path", "required": True}, **one}
    module = AnsibleModule(
        argument_spec={"directories": {"type": "list", "elements": "dict", "required": True, "options": options}},
        supports_check_mode=True,
    )
    different, before, after = [], [], []
    for directory in module.params["directories"]:
        path = Path(directory["path"])
        now, then = found(path), wanted(directory)
        if now == then:
            continue
        different.append(str(path))
        before.append(f"{path}: {now}\n")
        after.append(f"{path}: {then}\n")
        if not module.check_mode:
            make(module, directory)
    module.exit_json(
        changed=bool(different),
        different=different,
        diff={"before": "".join(before), "after": "".join(after)},
    )


if __name__ == "__main__":
    main()
