#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Provide a named token for the HTTP interface."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_token
short_description: Provide a named token for the HTTP interface of a SeedCore deployment
version_added: 0.1.0
description:
  - Runs C(seedcore token) on the head. The head stores only a digest, so a token is returned only when it is made.
options:
  name:
    description: Name of the token.
    type: str
    required: true
  scope:
    description: What it may do. A token of this name with another scope is replaced.
    type: str
    choices: [read, submit, operate]
    required: true
  renew:
    description: Replace the token even if there is one with this scope, for whoever has lost it.
    type: bool
    default: false
  executable:
    description: The deployment's C(<prefix>/bin/seedcore).
    type: path
    required: true
  user:
    description: The user of the deployment, as whom root runs it.
    type: str
  timeout:
    description: Seconds after which a call of the executable is killed.
    type: int
    default: 30
attributes:
  check_mode:
    description: Reports whether it would make a token.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Provide a token for a dashboard
  seedcore.cluster.seedcore_token:
    name: grafana
    scope: read
    executable: /opt/seedcore/bin/seedcore
    user: ray
  register: dashboard
  no_log: true
"""

RETURN = r"""
token:
  description: The token; empty unless it was made now.
  returned: success
  type: str
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli


class CommandError(Exception):
    """The command line has refused; the text is its own."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "scope": {"type": "str", "choices": ["read", "submit", "operate"], "required": True},
            "renew": {"type": "bool", "default": False},
            "executable": {"type": "path", "required": True},
            "user": {"type": "str"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode and not Path(params["executable"]).exists():
        module.exit_json(changed=True, token="")
    try:
        tokens: list[dict[str, Any]] = json.loads(call(params, "list", "--json"))
        scope = next((one["scope"] for one in tokens if one["name"] == params["name"] and one["valid"]), None)
        token, made = "", params["renew"] or scope != params["scope"]
        if made and not module.check_mode:
            if any(one["name"] == params["name"] for one in tokens):
                call(params, "revoke", params["name"])
            token = call(params, "add", params["name"], "--scope", params["scope"]).strip()
    except CommandError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=made, token=token)


def call(params: dict[str, Any], *words: str) -> str:
    """Return what ``seedcore token`` prints.

    Raises:
        CommandError: It did not succeed.
    """
    argv = [params["executable"], "token", *words]
    answer = cli.run(argv, timeout_s=params["timeout"], user=params["user"])
    if answer.rc != 0:
        why = answer.stderr.strip() or f"exit code {answer.rc}"
        raise CommandError(f"{' '.join(argv[:3])} failed on the head: {why}")
    return str(answer.stdout)


if __name__ == "__main__":
    main()
