from __future__ import annotations

import math
from typing import Any

import pytest

from tests.ansible.plugins.conftest import FAILED, STARTING

status: Any = pytest.importorskip("ansible_collections.seedcore.cluster.plugins.module_utils.status")

DEFAULTS = {name: option.get("default") for name, option in status.ARGUMENT_SPEC.items()}


def test_the_defaults_have_no_fault() -> None:
    assert status.faults(DEFAULTS) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wait_timeout": 0}, "wait_timeout is 0, expected 1 or more"),
        ({"wait_timeout": -5, "wait": True}, "wait_timeout is -5, expected 1 or more"),
        ({"wait_sleep": 0}, "wait_sleep is 0, expected 1 or more"),
        ({"stable_s": -1}, "stable_s is -1, expected 0 or more"),
        ({"stable_s": math.nan}, "stable_s is nan, expected 0 or more, and finite"),
        ({"command_timeout": math.inf}, "command_timeout is inf, expected 1 or more, and finite"),
        ({"command_timeout": 0}, "command_timeout is 0, expected 1 or more"),
        ({"expected_nodes": 0}, "expected_nodes is 0, expected 1 or more"),
        ({"expected_release": " "}, "expected_release is empty, expected a text or no expected_release at all"),
        ({"executable": ""}, "executable is empty, expected a text or no executable at all"),
        ({"namespace": ""}, "namespace is empty, expected a text or no namespace at all"),
        ({"namespace": "a b"}, "namespace is 'a b', expected one word"),
        ({"address": "head"}, "address is 'head', expected host:port"),
        ({"address": "head:70000"}, "address is 'head:70000', expected host:port"),
        ({"expected_node_names": ["a", ""]}, "expected_node_names contains an empty name, expected names of nodes"),
        ({"expected_node_names": ["a", "a"]}, "expected_node_names contains a name twice, expected unique names"),
        (
            {"wait": True, "wait_timeout": 5, "stable_s": 5},
            "stable_s is 5, expected less than wait_timeout (5)",
        ),
    ],
)
def test_each_fault_is_named_with_what_is_allowed(options: dict[str, Any], said: str) -> None:
    assert status.faults({**DEFAULTS, **options}) == [said]


def test_all_faults_are_named_at_once() -> None:
    assert len(status.faults({**DEFAULTS, "wait_timeout": 0, "wait_sleep": 0, "namespace": ""})) == 3


def test_the_line_of_a_failure() -> None:
    line = status.failure_line(FAILED, elapsed_s=4.2)
    assert line == "init_failed: agent a_agent_0 did not start: no such file (after 4 s)"


def test_the_line_of_what_still_initializes_says_so_once() -> None:
    line = "starting: still initializing: 1 of 3 organs ready (after 5 s)"
    assert status.failure_line(STARTING, elapsed_s=5.3) == line
    said = {**STARTING, "message": "still initializing: 1 of 3 organs ready"}
    assert status.failure_line(said, elapsed_s=5.3) == line


def test_the_result_of_a_wait_that_failed() -> None:
    result = status.failure(FAILED, elapsed_s=4.2)
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"] == "init_failed: agent a_agent_0 did not start: no such file (after 4 s)"


def test_a_module_that_failed_by_itself_keeps_its_own_words() -> None:
    assert status.failure({"failed": True, "msg": "no such host"}, elapsed_s=4.2)["msg"] == "no such host"
