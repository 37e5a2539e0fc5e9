# SPDX-License-Identifier: Apache-2.0
"""A filter that converts text to its type, because ``-e name=value`` and INI inventories can only give text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.validation import check_type_bool, check_type_dict, check_type_list

# The same values as in Ansible's own validation of arguments.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "bool": check_type_bool,
    "dict": check_type_dict,
    "list": check_type_list,
}


def typed(value: Any, kind: str) -> Any:
    """Return ``value`` as a ``kind`` (bool, dict or list): "a,b" and '["a", "b"]' are lists, '{"a": 1}' is a dict.

    Raises:
        AnsibleFilterError: The value cannot be converted.
    """
    if kind == "list" and isinstance(value, (list, tuple)):
        return list(value)
    if kind == "list" and isinstance(value, str):
        return _list(value)
    if kind == "dict" and isinstance(value, str) and not value.strip():
        return {}
    try:
        return _CHECKS[kind](value)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"{value!r} is not a {kind}: {error}") from error


def _list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError:
            pass
    return [entry.strip() for entry in text.split(",") if entry.strip()]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {"typed": typed}
