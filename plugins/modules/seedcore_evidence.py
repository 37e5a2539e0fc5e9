#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Collect the evidence of a failure."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_evidence
short_description: Collect the ends of log files and the output of commands, without secrets
version_added: 0.1.0
description:
  - Only reads, and never fails because a file or a command is missing, empty, slow or broken; the result tells that.
  - Removes the content of the files in O(secrets) from everything that it returns.
  - With O(path), shows a summary on the controller's screen and writes everything to a file there.
options:
  path:
    description: File on the controller for the full evidence, readable by its owner only.
    type: path
  report:
    description: The result of M(seedcore.cluster.seedcore_status) or M(seedcore.cluster.seedcore_bootstrap) to explain.
    type: dict
    default: {}
  commands:
    description: Commands to run, each a list of words.
    type: list
    elements: list
    default: []
  files:
    description:
      - Files whose ends to read; may contain shell wildcards, for which the newest files are taken.
    type: list
    elements: str
    default: []
  newest:
    description: Number of files to take for each wildcard, 1 or more.
    type: int
    default: 3
  lines:
    description: Number of lines to take from each file and each output, 1 or more.
    type: int
    default: 40
  secrets:
    description: Files whose content must not be shown.
    type: list
    elements: path
    default: []
  user:
    description:
      - User that owns the files. As root, files that others than root could have made are read with that user's
        rights, so that a link cannot lead to another user's files.
    type: str
  timeout:
    description: Seconds after which a command is killed with all its children, 1 or more.
    type: int
    default: 15
attributes:
  check_mode:
    description: Only reads, so it does the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Collect the status of Ray
  seedcore.cluster.seedcore_evidence:
    commands:
      - [/opt/seedcore/bin/ray, status]
    files:
      - /opt/seedcore/log/*.log
    secrets:
      - /opt/seedcore/etc/token
    path: evidence.txt
    report: "{{ now }}"
"""

RETURN = r"""
path:
  description: The file on the controller.
  returned: if O(path) is given
  type: str
sections:
  description: The results, in the order of the options.
  returned: success
  type: list
  elements: dict
  contains:
    title:
      description: The command or the path of the file.
      type: str
    text:
      description: The last lines.
      type: str
"""

import glob
import re
import shlex
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, logs, paths, status, users

_BYTES_A_LINE = 2000
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s'\"]+")
_HIDDEN = "********"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            # The action plugin on the controller uses these two.
            "path": {"type": "path"},
            "report": {"type": "dict", "default": {}},
            "commands": {"type": "list", "elements": "list", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "newest": {"type": "int", "default": 3},
            "lines": {"type": "int", "default": 40},
            "secrets": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "user": {"type": "str"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    params = module.params
    if wrong := status.minimum_faults(params, {"newest": 1, "lines": 1, "timeout": 1}):
        module.fail_json(msg="; ".join(wrong))
    hidden = [text for path in params["secrets"] if (text := (logs.end_of(path, max_bytes=100_000) or "").strip())]
    sections = [_command(argv, params) for argv in params["commands"]]
    found: dict[str, dict[str, str]] = {}
    for pattern in params["files"]:
        found |= {section["title"]: section for section in _files(pattern, params) if section["title"] not in found}
    sections += found.values()
    module.exit_json(changed=False, sections=[_without(section, hidden) for section in sections])


def _command(argv: list[Any], params: dict[str, Any]) -> dict[str, str]:
    words = [str(word) for word in argv]
    answer = cli.run(words, timeout_s=params["timeout"])
    end = {None: f"(killed after {params['timeout']} s)", 0: "", -1: ""}.get(answer.rc, f"(exit code {answer.rc})")
    text = "\n".join(part for part in (_last(answer.stdout, params), _last(answer.stderr, params), end) if part)
    return {"title": shlex.join(words), "text": text or "(no output)"}


def _files(pattern: str, params: dict[str, Any]) -> list[dict[str, str]]:
    """Read the files of a pattern, with the rights of the users who could have made them."""
    try:
        reader = None if paths.is_ours(Path(pattern).parent) else params["user"]
        with users.acting_as(reader):
            return [_file(path, params) for path in _newest(pattern, params["newest"])]
    except (LookupError, OSError) as error:
        return [{"title": pattern, "text": f"({error})"}]


def _newest(pattern: str, count: int) -> list[Path]:
    if not glob.has_magic(pattern):
        return [Path(pattern)]
    found = [Path(name) for name in glob.glob(pattern)]  # noqa: PTH207 - the pattern is absolute
    filled = [path for path in found if path.is_file() and path.stat().st_size]
    return sorted(filled, key=lambda path: path.stat().st_mtime)[-count:]


def _file(path: Path, params: dict[str, Any]) -> dict[str, str]:
    text = logs.end_of(path, max_bytes=params["lines"] * _BYTES_A_LINE)
    if text is None:
        return {"title": str(path), "text": "(there is no such file, or it cannot be read)"}
    return {"title": str(path), "text": _last(text, params) or "(empty)"}


def _last(text: str, params: dict[str, Any]) -> str:
    return "\n".join(text.rstrip().splitlines()[-params["lines"] :])


def _without(section: dict[str, str], hidden: list[str]) -> dict[str, str]:
    text = _BEARER.sub(rf"\g<1>{_HIDDEN}", section["text"])
    for secret in hidden:
        text = text.replace(secret, _HIDDEN)
    return {**section, "text": text}


if __name__ == "__main__":
    main()
