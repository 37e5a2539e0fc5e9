#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: remove the layers of a deployment that are not needed any more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_prune
short_description: Remove old layers of a SeedCore deployment
version_added: 0.1.0
description:
  - Keeps the active layer, the newest others that are complete, and the layers that these see. Removes all other
    releases and agents' layers, also those that are not complete. Without an active layer it removes nothing.
  - Run it after the gate has passed. It removes no environment of Ray, but reports which ones are needed.
options:
  prefix:
    description: Directory of the deployment.
    type: path
    required: true
  keep:
    description: Number of layers to keep that can be active, the active one included; 1 or more. By default all.
    type: int
  green:
    description: Record that the gate has passed with the active layer, when, and with which organism.yaml.
    type: bool
    default: false
attributes:
  check_mode:
    description: Reports what it would remove.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Remove old releases
  seedcore.cluster.seedcore_prune:
    prefix: /opt/seedcore
    keep: 3
    green: true
"""

RETURN = r"""
kept:
  description: Layers that are kept, from the prefix, those of Ray included.
  returned: success
  type: list
  elements: str
  sample: [agents/0.1.0-2aae1e50dd8c.b1946ac92492, ray/27b07311e8e2, releases/0.1.0-2aae1e50dd8c]
removed:
  description: Layers that were removed, from the prefix.
  returned: success
  type: list
  elements: str
"""

import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import layers, paths


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "keep": {"type": "int"},
            "green": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    prefix, keep = Path(module.params["prefix"]), module.params["keep"]
    if keep is not None and keep < 1:
        module.fail_json(msg=f"keep is {keep}, expected 1 or more")
    active, known = layers.active(prefix), layers.read(prefix)
    removes = bool(active and keep)
    kept = layers.kept(known, active, keep if removes else len(known) + 1)
    removed = [layer.path for layer in known if layer.path not in kept] if removes else []
    try:
        if not module.check_mode:
            if module.params["green"]:
                mark_green(prefix, known, active)
            # One that is removed half-way is none.
            for path in removed:
                (prefix / path / layers.DOCUMENT).unlink(missing_ok=True)
            for path in removed:
                shutil.rmtree(prefix / path)
    except OSError as error:
        module.fail_json(msg=paths.told(error))
    # That the layer is green is not part of the host's state.
    module.exit_json(changed=bool(removed), kept=sorted(kept), removed=removed)


def mark_green(prefix: Path, known: list[layers.Layer], active: str) -> None:
    """Record since when the active layer is green, and with which organism."""
    times = {layer.path: layer.green for layer in known}
    if active not in times:
        return
    own, kept = paths.look(prefix / "etc" / layers.ORGANISM), prefix / active / layers.ORGANISM
    before = paths.look(kept)
    if own.kind == "file" and before != own:
        paths.put(kept, own)
    elif own.kind != "file" and before.kind == "file":
        paths.remove(kept)
    # One that was green last already keeps its time.
    if not times[active] or times[active] != max(times.values()):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        paths.put(prefix / active / layers.GREEN, paths.State("file", f"{now}\n", mode=0o644))


if __name__ == "__main__":
    main()
