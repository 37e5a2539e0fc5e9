# SPDX-License-Identifier: Apache-2.0
"""A filter that reads the variable seedcore_environments, whose values may come from a command line as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.seedcore.cluster.plugins.filter.typed import typed

# As of the key of an organ in organism.yaml.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_ALLOWED = "a mapping of names to lists of packages, such as {vision: [my_vision]}"


def environments(value: Any) -> dict[str, Any]:
    """Return the packages of each environment by its name, and what is wrong: ``{"packages": ..., "faults": [...]}``.

    With faults there are no packages.
    """
    try:
        given: Mapping[Any, Any] = typed(value, "dict")
    except AnsibleFilterError:
        return {"packages": {}, "faults": [f"it is {json.dumps(value, default=str)}, expected {_ALLOWED}"]}
    faults = [
        f"the name {json.dumps(name, default=str)} is not allowed, expected up to 31 of a-z 0-9 _ -, a letter first"
        for name in given
        if not (isinstance(name, str) and NAME.fullmatch(name))
    ]
    packages: dict[str, list[str]] = {}
    for name, entries in given.items():
        listed = typed(entries, "list") if isinstance(entries, (str, list)) else None
        if listed is None or not all(isinstance(entry, str) and entry.strip() for entry in listed):
            faults.append(f"{name} is {json.dumps(entries, default=str)}, expected a list of packages")
        else:
            packages[name] = [entry.strip() for entry in listed]
    return {"packages": {} if faults else packages, "faults": faults}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {"environments": environments}
