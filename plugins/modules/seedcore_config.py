#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Install an organism.yaml that the release accepts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_config
short_description: Install an organism.yaml, but only one that the SeedCore release accepts
version_added: 0.1.0
description:
  - Checks the file with C(seedcore config check) of a release on the host, where the agents' code can be imported.
  - Changes nothing if the file has errors, and reports each error with its line and column.
  - Checks the file even if it is already installed, because another release may not accept it.
options:
  source:
    description: Name of the organism.yaml on the controller, for messages.
    type: str
    required: true
  content:
    description: Content of the file.
    type: str
    required: true
  dest:
    description: Path of the file on the host.
    type: path
    required: true
  executable:
    description: The C(seedcore) that checks. In check mode it may be missing; the file is then not checked.
    type: path
    required: true
  user:
    description: User that runs the check, because it imports the agents' code; by default the user of the module.
    type: str
  inbox:
    description:
      - Where the deployment will have its durable tasks, as the variable C(SEEDCORE_INBOX); schedules need a place.
      - Empty means that the settings that are already on the host say it.
    type: str
    default: ""
  timeout:
    description: Time limit of the check in seconds, 1 or more.
    type: int
    default: 60
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    description: Checks, and reports whether the file would change.
    support: full
  diff_mode:
    description: Shows the changes in the file.
    support: full
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Install the organism.yaml
  seedcore.cluster.seedcore_config:
    source: organism.yaml
    content: "{{ lookup('ansible.builtin.file', 'organism.yaml', rstrip=false) }}"
    dest: /opt/seedcore/etc/organism.yaml
    executable: /opt/seedcore/releases/0.1.0-2aae1e50dd8c/bin/seedcore
    mode: "0640"
"""

RETURN = r"""
summary:
  description: Summary of an accepted file; empty if it could not be checked.
  returned: success
  type: str
faults:
  description: One line per error, C(file:line:column) and the message.
  returned: if the release does not accept the file
  type: list
  elements: str
"""

import difflib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, users


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            # Options of agents may contain keys, which must not get into the host's journal.
            "content": {"type": "str", "required": True, "no_log": True},
            "dest": {"type": "path", "required": True},
            "executable": {"type": "path", "required": True},
            "user": {"type": "str"},
            "inbox": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    params = module.params
    if params["timeout"] < 1:
        module.fail_json(msg=f"timeout is {params['timeout']}, expected 1 or more")
    dest = Path(params["dest"])
    summary = check(module)
    before = dest.read_text(encoding="utf-8") if dest.is_file() else ""
    changed = not dest.is_file() or before != params["content"]
    if changed and not module.check_mode:
        candidate = write(params["content"], Path(module.tmpdir))
        module.atomic_move(str(candidate), str(dest))
    if dest.is_file():
        changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(params), changed)
    after = params["content"].splitlines()
    lines = difflib.unified_diff(before.splitlines(), after, str(dest), params["source"], lineterm="")
    module.exit_json(changed=changed, summary=summary, diff={"prepared": "".join(f"{line}\n" for line in lines)})


def write(content: str, directory: Path) -> Path:
    """Write the file to a place that nobody else can read."""
    descriptor, name = tempfile.mkstemp(suffix=".yaml", dir=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
    return Path(name)


def check(module: AnsibleModule) -> str:
    """Check the file with the release; fail the module if it has errors."""
    params: dict[str, Any] = module.params
    if module.check_mode and not Path(params["executable"]).exists():
        return ""
    try:
        account = users.other(params["user"])
    except LookupError as error:
        if module.check_mode:
            return ""
        module.fail_json(msg=str(error))
    # A directory in which nobody else can write and only the checking user can read.
    with tempfile.TemporaryDirectory() as directory:
        candidate = write(params["content"], Path(directory))
        if account is not None:
            for path in (Path(directory), candidate):
                os.chown(path, account.pw_uid, account.pw_gid)
        argv = [params["executable"], "config", "check", "--config", str(candidate)]
        environ = {"SEEDCORE_INBOX": params["inbox"]} if params["inbox"] else None
        answer = cli.run(argv, timeout_s=params["timeout"], environ=environ, user=params["user"])
    said: str = (answer.stdout + answer.stderr).replace(str(candidate), params["source"]).strip()
    if answer.rc is None:
        module.fail_json(msg=f"{params['source']} was not checked within {params['timeout']} s")
    if answer.rc == cli.USAGE_ERROR:
        module.fail_json(msg=said, faults=said.splitlines())
    if answer.rc != 0:
        module.fail_json(msg=f"{params['source']} cannot be checked (exit code {answer.rc}): {said}")
    return said


if __name__ == "__main__":
    main()
