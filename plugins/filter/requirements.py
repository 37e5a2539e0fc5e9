# SPDX-License-Identifier: Apache-2.0
"""Filters for lists of requirements with hashes."""

from __future__ import annotations

import re
from collections.abc import Callable

# A requirement begins at the left; its hashes and comments follow indented.
_ENTRY = re.compile(r"(?m)^(?P<wanted>[A-Za-z0-9][^\n\\]*?)[ \t]*(?:\\[ \t]*)?$(?P<rest>(?:\n[ \t]+[^\n]*)*)")


def requirements_beyond(locked: str, installed: str) -> str:
    """Return the entries of a list with hashes that another list does not have, with the same version and marker."""
    there = {match["wanted"] for match in _ENTRY.finditer(installed)}
    return "".join(f"{match[0]}\n" for match in _ENTRY.finditer(locked) if match["wanted"] not in there)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return them by name."""
        return {"requirements_beyond": requirements_beyond}
