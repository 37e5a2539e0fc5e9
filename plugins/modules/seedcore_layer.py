#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: install a layer of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_layer
short_description: Install a layer of a SeedCore deployment
version_added: 0.1.0
description:
  - Makes a virtual environment that sees the packages of another one, installs requirements and wheels into it, and
    checks that its command line runs.
  - A layer is complete if it has a C(release.json), which is written last. An existing environment is made anew.
options:
  path:
    description: Directory of the layer.
    type: path
    required: true
  below:
    description: Directory of the virtual environment whose packages it sees.
    type: path
    required: true
  python:
    description: The Python that it is made from, the same as that of O(below).
    type: path
    required: true
  uv:
    description: The C(uv) that installs.
    type: path
    required: true
  through:
    description: Words to put before each command of C(uv), such as a shell that reads its settings.
    type: list
    elements: str
    default: []
  incoming:
    description: Directory with the wheels; it is moved into the layer, to C(share/seedcore).
    type: path
  files:
    description: More files for C(share/seedcore), name to text.
    type: dict
    default: {}
  installs:
    description: Arguments of C(uv pip install), one list after the other. Files have names without a directory.
    type: list
    elements: list
    default: []
  commands:
    description: Commands to put into its C(bin), name to C(module:function), for packages of the layer below.
    type: dict
    default: {}
  verify:
    description: A command that must succeed, whose first word is below the layer.
    type: list
    elements: str
    default: []
  user:
    description: The user who runs O(verify); empty for the user of this module.
    type: str
    default: ""
  document:
    description: Content of C(release.json).
    type: dict
    required: true
  uv_cache:
    description: Cache of C(uv).
    type: path
  timeout:
    description: Time limit in seconds of each command.
    type: int
    default: 900
attributes:
  check_mode:
    description: Changes nothing, and reports that it would install the layer.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Install a release
  seedcore.cluster.seedcore_layer:
    path: /opt/seedcore/releases/0.1.0-2aae1e50dd8c
    below: /opt/seedcore/ray/27b07311e8e2
    python: /usr/bin/python3.11
    uv: /opt/seedcore/tools/bin/uv
    incoming: /opt/seedcore/cache/incoming/0.1.0-2aae1e50dd8c
    installs: [[--no-deps, seedcore-0.1.0-py3-none-any.whl]]
    verify: [bin/seedcore, --version]
    document: {release: 0.1.0-2aae1e50dd8c, below: ray/27b07311e8e2}
"""

RETURN = r"""
seconds:
  description: Seconds that each step took.
  returned: success
  type: dict
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, layers, paths

_COMMAND = """#!{python}
from {module} import {function}

raise SystemExit({function}())
"""
_TOLD_LINES = 20


class StepError(Exception):
    """A step has failed; the text says which, and why."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "below": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "uv": {"type": "path", "required": True},
            "through": {"type": "list", "elements": "str", "default": []},
            "incoming": {"type": "path"},
            "files": {"type": "dict", "default": {}},
            "installs": {"type": "list", "elements": "list", "default": []},
            "commands": {"type": "dict", "default": {}},
            "verify": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str", "default": ""},
            "document": {"type": "dict", "required": True},
            "uv_cache": {"type": "path"},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, seconds={})
    # What is installed is for everybody to read, whatever umask root has.
    os.umask(0o022)
    seconds: dict[str, float] = {}
    try:
        for name, step in Installation(module.params).steps():
            began = time.monotonic()
            step()
            seconds[name] = round(time.monotonic() - began, 3)
    except StepError as error:
        module.fail_json(msg=f"{module.params['path']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{module.params['path']}: {paths.told(error)}")
    module.exit_json(changed=True, seconds=seconds)


class Installation:
    """The steps of one installation."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.path = Path(params["path"])
        self.sources = self.path / "share" / "seedcore"

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the steps in their order, each with its name."""
        return [
            ("environment", self.make), ("sources", self.bring), ("packages", self.install),
            ("commands", self.write_commands), ("verify", self.verify), ("mark", self.mark),
        ]  # fmt: skip

    def make(self) -> None:
        """Make the virtual environment; without its mark, what was there is no layer any more."""
        (self.path / layers.DOCUMENT).unlink(missing_ok=True)
        python, below = self.params["python"], Path(self.params["below"])
        self._uv("venv", "--quiet", "--clear", "--no-project", "--python", python, str(self.path))
        layers.put_on_top(self.path, below)

    def bring(self) -> None:
        """Put what it is installed from into it."""
        self.sources.parent.mkdir(exist_ok=True)
        if self.params["incoming"]:
            # The cache may be on another file system.
            shutil.move(self.params["incoming"], self.sources)
        self.sources.mkdir(exist_ok=True)
        for name, text in self.params["files"].items():
            (self.sources / name).write_text(text, encoding="utf-8")
        for entry in (self.sources, *self.sources.iterdir()):
            entry.chmod(0o755 if entry.is_dir() else 0o644)

    def install(self) -> None:
        """Install the packages."""
        begin = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(self.path / "bin" / "python")]
        for arguments in self.params["installs"]:
            # What is here is named without its directory.
            words = [str(self.sources / word) if (self.sources / word).is_file() else word for word in arguments]
            self._uv(*begin, *words)

    def write_commands(self) -> None:
        """Write commands for packages of the layer below."""
        python = self.path / "bin" / "python"
        for name, entry in self.params["commands"].items():
            target, function = entry.split(":")
            file = self.path / "bin" / name
            file.write_text(_COMMAND.format(python=python, module=target, function=function), encoding="utf-8")
            file.chmod(0o755)

    def verify(self) -> None:
        """Run the command that must succeed."""
        if self.params["verify"]:
            first, *more = self.params["verify"]
            self._run([str(self.path / first), *more], what=first, user=self.params["user"] or None)

    def mark(self) -> None:
        """Mark it as complete."""
        beside = self.path / f".{layers.DOCUMENT}"
        beside.write_text(json.dumps(self.params["document"], indent=4, sort_keys=True) + "\n", encoding="utf-8")
        beside.chmod(0o644)
        beside.replace(self.path / layers.DOCUMENT)

    def _uv(self, *arguments: str) -> None:
        environ = {"UV_CACHE_DIR": self.params["uv_cache"]} if self.params["uv_cache"] else {}
        what = " ".join(("uv", *(word for word in arguments if word != "--quiet")))
        self._run([*self.params["through"], self.params["uv"], *arguments], what=what, environ=environ)

    def _run(
        self, argv: list[str], *, what: str, environ: dict[str, str] | None = None, user: str | None = None
    ) -> None:
        timeout_s = self.params["timeout"]
        answer = cli.run(argv, timeout_s=timeout_s, environ=environ, user=user)
        if answer.rc is None:
            raise StepError(f"{what} did not end within {timeout_s} s")
        if answer.rc != 0:
            lines = (answer.stderr or answer.stdout).strip().splitlines()[-_TOLD_LINES:]
            raise StepError(f"{what} has failed: " + "\n".join(lines))


if __name__ == "__main__":
    main()
