"""Test the cause of a failure, extracted from any result of a task."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.callback.outcome import cause_of


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"msg": "the port is taken"}, "the port is taken"),
        ({"msg": ["one", "two"]}, "one\ntwo"),
        ({"msg": "non-zero return code", "stderr": "Traceback\n\nOSError: no\n"}, "non-zero return code: OSError: no"),
        ({"module_stderr": "sudo: a password is required\n"}, "sudo: a password is required"),
        (
            {
                "msg": "One or more items failed",
                "results": [{"failed": True, "msg": "a"}, {"msg": "fine"}, {"failed": True, "msg": "a"}],
            },
            "a",
        ),
        ({}, "unknown cause"),
    ],
)
def test_the_cause_is_found(result: dict[str, Any], text: str) -> None:
    assert cause_of(result) == text
