#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Put an organism.yaml in place that the release accepts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_config
short_description: Put an organism.yaml in place, but only one that the SeedCore release accepts
version_added: 0.1.0
description:
  - Lets C(seedcore config check) of a release judge the file on the host, where the agents' code can be imported.
  - A file with faults changes nothing; each fault is named with its line and column.
  - The file is checked even if it is in place already, because another release may judge it otherwise.
options:
  source:
    description: The organism.yaml on the controller, as messages shall name it.
    type: str
    required: true
  content:
    description: What is in it.
    type: str
    required: true
  dest:
    description: Where it goes on the host.
    type: path
    required: true
  executable:
    description: The C(seedcore) of the release that judges. In check mode one that is not there yet cannot be asked.
    type: path
    required: true
  user:
    description: Who runs it, for it imports the agents' code; by default who runs the module.
    type: str
  timeout:
    description: Seconds that the check may take, 1 or more.
    type: int
    default: 60
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    description: Judges, and says whether the file would change.
    support: full
  diff_mode:
    description: Shows what changes in the file.
    support: full
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: The organism is configured
  seedcore.cluster.seedcore_config:
    source: organism.yaml
    content: "{{ lookup('ansible.builtin.file', 'organism.yaml', rstrip=false) }}"
    dest: /opt/seedcore/etc/organism.yaml
    executable: /opt/seedcore/releases/0.1.0-2aae1e50dd8c/bin/seedcore
    mode: "0640"
"""

RETURN = r"""
summary:
  description: What the release says of a file that it accepts; empty if it could not be asked.
  returned: success
  type: str
faults:
  description: One line a fault, C(file:line:column) and what is wrong.
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
            # Options of agents may hold keys, which are not for the host's journal.
            "content": {"type": "str", "required": True, "no_log": True},
            "dest": {"type": "path", "required": True},
            "executable": {"type": "path", "required": True},
            "user": {"type": "str"},
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
    """Write the file to a place that nobody else reads."""
    descriptor, name = tempfile.mkstemp(suffix=".yaml", dir=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
    return Path(name)


def check(module: AnsibleModule) -> str:
    """Ask the release; a file with faults ends the module."""
    params: dict[str, Any] = module.params
    if module.check_mode and not Path(params["executable"]).exists():
        return ""
    try:
        account = users.other(params["user"])
    except LookupError as error:
        if module.check_mode:
            return ""
        module.fail_json(msg=str(error))
    # A place of its own, where nobody else can write and only the user who checks can read.
    with tempfile.TemporaryDirectory() as directory:
        candidate = write(params["content"], Path(directory))
        if account is not None:
            for path in (Path(directory), candidate):
                os.chown(path, account.pw_uid, account.pw_gid)
        argv = [params["executable"], "config", "check", "--config", str(candidate)]
        answer = cli.run(argv, timeout_s=params["timeout"], user=params["user"])
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
