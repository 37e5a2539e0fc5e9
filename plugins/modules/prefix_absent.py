#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: remove the directory of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prefix_absent
short_description: Remove the directory of a deployment, so that an interrupted removal can be repeated
version_added: 0.1.0
description:
  - Removes the content of a directory, then the file that marks it as a deployment, then the directory. The mark is
    removed last, so an interrupted removal can be repeated.
  - Removes nothing without the mark.
  - Follows a link to the directory, but no link inside of it. A mount point is emptied and stays, like the
    C(lost+found) of its file system.
options:
  path:
    description: The directory, or a link to it.
    type: path
    required: true
  mark:
    description: Name of the file in it that marks it as a deployment.
    type: str
    default: .seedcore
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Reports whether something would be removed.}
  diff_mode: {support: none, description: Removed files are not listed.}
"""

EXAMPLES = r"""
- name: Remove the deployment
  seedcore.cluster.prefix_absent:
    path: /opt/seedcore
"""

RETURN = r"""
marked:
  description: Whether the directory had the mark.
  returned: success
  type: bool
mark:
  description: Content of the mark.
  returned: success
  type: str
foreign:
  description: Whether there are files without the mark, which were left alone.
  returned: success
  type: bool
left:
  description: Empty mount points that are still there.
  returned: success
  type: list
  elements: str
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import paths

# Belongs to the file system and not to its user.
_LOST_AND_FOUND = "lost+found"
_IN_USE = (errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST)


def look(path: Path, mark: str) -> dict[str, Any]:
    """Return the state of the directory."""
    state = paths.look(path, follow=True)
    names = {entry.name for entry in path.iterdir()} - {_LOST_AND_FOUND} if state.kind == "directory" else set()
    text = paths.look(path / mark).text if mark in names else ""
    foreign = state.kind not in ("directory", "absent", "link") or bool(names and mark not in names)
    return {"marked": mark in names, "mark": text, "foreign": foreign, "left": []}


def remove(path: Path, mark: str) -> list[str]:
    """Remove the directory, the mark last; return the mount points that stay.

    Raises:
        OSError: A file cannot be removed.
    """
    real = path.resolve()
    left: list[str] = []
    for entry in sorted(os.scandir(real), key=lambda entry: entry.name):
        if entry.name in (mark, _LOST_AND_FOUND):
            continue
        if entry.is_dir(follow_symlinks=False):
            left += _remove_tree(Path(entry.path))
        else:
            os.unlink(entry.path)  # noqa: PTH108 - an entry of scandir
    (real / mark).unlink()
    try:
        real.rmdir()
    except OSError as error:
        if error.errno not in _IN_USE:
            raise
        return [*left, str(real)]
    if path.is_symlink():
        path.unlink()
    return left


def _remove_tree(top: Path) -> list[str]:
    mounts = [where for where, _directories, _files in os.walk(top) if os.path.ismount(where)]
    failed: list[OSError] = []

    def note(_function: Any, where: str, info: Any) -> None:
        error = info[1]
        # A mount point stays, and so do its parent directories.
        if not any(mount == where or mount.startswith(f"{where}/") for mount in mounts) or error.errno not in _IN_USE:
            error.filename = where
            failed.append(error)

    shutil.rmtree(top, onerror=note)
    if failed:
        raise failed[0]
    return mounts


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "mark": {"type": "str", "default": ".seedcore"}},
        supports_check_mode=True,
    )
    path, mark = Path(module.params["path"]), module.params["mark"]
    try:
        found = look(path, mark)
        if found["marked"] and not module.check_mode:
            found["left"] = remove(path, mark)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path} cannot be removed: {error.strerror}")
    module.exit_json(changed=found["marked"], **found)


if __name__ == "__main__":
    main()
