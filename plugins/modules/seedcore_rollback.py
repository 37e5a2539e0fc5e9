#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: make an earlier layer of a deployment the active one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_rollback
short_description: Make an earlier release of a SeedCore deployment the active one
version_added: 0.1.0
description:
  - Changes the link C(current) and, on the host that has one, C(etc/organism.yaml) to what they were when that release
    was green, and its name in C(etc/seedcore.env). Starts and stops nothing.
  - Fails, and changes nothing, if the release is not on the host or needs another Ray than the nodes run.
options:
  prefix:
    description: Directory of the deployment.
    type: path
    required: true
  to:
    description: Id of the release, or of its agents; empty for the one that was green before the active one.
    type: str
    default: ""
  before:
    description:
      - Id of the layer that was active before a run whose gate was red. It is chosen if it was green, else the one that
        was green last. It may be the active one, if only its organism has changed. Excludes O(to).
    type: str
  state:
    description: V(found) only chooses it, V(active) makes it the active one.
    type: str
    choices: [found, active]
    default: active
attributes:
  check_mode:
    description: Reports what it would change.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Go back to the release that was green before
  seedcore.cluster.seedcore_rollback:
    prefix: /opt/seedcore
"""

RETURN = r"""
id:
  description: Id of the layer.
  returned: success
  type: str
  sample: 0.1.0-2aae1e50dd8c.b1946ac92492
release:
  description: Id of its release.
  returned: success
  type: str
agents:
  description: Id of its agents; empty if it has none.
  returned: success
  type: str
environments:
  description: Ids of the environments of its agents, by their names.
  returned: success
  type: dict
before:
  description: Id of the layer that was active.
  returned: success
  type: str
green:
  description: When it was green, as text; empty if it never was.
  returned: success
  type: str
differs:
  description: Whether something has to change to make it the active one.
  returned: success
  type: bool
"""

import dataclasses
import re
import shlex
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import layers, paths


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "to": {"type": "str", "default": ""},
            "before": {"type": "str"},
            "state": {"type": "str", "choices": ["found", "active"], "default": "active"},
        },
        supports_check_mode=True,
    )
    prefix, known = Path(module.params["prefix"]), layers.read(Path(module.params["prefix"]))
    active = layers.active(prefix)
    ray, before = f"ray/{_target(prefix / 'ray' / 'current')}", module.params["before"]
    try:
        if before is None:
            chosen = layers.choose(known, active, ray, module.params["to"])
        else:
            chosen = layers.choose_for_revert(known, active, ray, before)
    except layers.NoReleaseError as error:
        module.fail_json(msg=str(error))
    wanted = pending(prefix, chosen, active)
    changes = wanted if module.params["state"] == "active" else []
    if not module.check_mode:
        try:
            for path, state in changes:
                if state.kind == "absent":
                    paths.remove(path)
                else:
                    paths.put(path, state)
        except OSError as error:
            module.fail_json(msg=paths.told(error))
    module.exit_json(
        changed=bool(changes), id=chosen.id, release=str(chosen.document.get("release") or ""),
        agents=str(chosen.document.get("agents") or ""), environments=chosen.environments,
        before=active.rpartition("/")[2], green=chosen.green, differs=bool(wanted),
    )  # fmt: skip


def pending(prefix: Path, chosen: layers.Layer, active: str) -> list[tuple[Path, paths.State]]:
    """Return the paths that have to change, with their new states; the link is the last one."""
    organism = paths.look(prefix / chosen.path / layers.ORGANISM)
    changes = []
    # A green release without a file ran the organism of the package. Of one that never was green nothing is recorded.
    if chosen.green or organism.kind == "file":
        own, settings = prefix / "etc" / layers.ORGANISM, prefix / "etc" / "seedcore.env"
        name = str(own) if organism.kind == "file" else ""
        now = paths.look(settings)
        text = re.sub(r"(?m)^SEEDCORE_CONFIG=.*$", lambda _: f"SEEDCORE_CONFIG={shlex.quote(name)}", now.text)
        wanted = [(own, organism), (settings, dataclasses.replace(now, text=text))]
        changes = [(path, state) for path, state in wanted if paths.look(path) != state]
    link = paths.State("link", text=chosen.path)
    return [*changes, *([(prefix / "current", link)] if active != chosen.path else [])]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


if __name__ == "__main__":
    main()
