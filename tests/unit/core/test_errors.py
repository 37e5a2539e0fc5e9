from __future__ import annotations

import pickle

import pytest

from seedcore.core import errors
from seedcore.core.errors import AgentStartError, ClusterError, ConfigError, Fault, SeedCoreError

EXAMPLES: list[SeedCoreError] = [
    ConfigError((Fault("o.yaml", 3, 7, "wrong"), Fault("o.yaml", 0, 0, "missing"))),
    AgentStartError("no", "Traceback ..."),
    ClusterError("unreachable", "no answer"),
    *(
        kind("why")
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, SeedCoreError)
        and kind not in {ConfigError, AgentStartError, ClusterError}
    ),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_travels_between_processes(error: SeedCoreError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))


def test_every_error_stands_in_the_tree_of_the_docstring() -> None:
    assert errors.__doc__ is not None
    for error in EXAMPLES:
        assert type(error).__name__ in errors.__doc__


def test_a_configuration_error_is_one_line_a_fault() -> None:
    assert str(EXAMPLES[0]) == "o.yaml:3:7: wrong\no.yaml: missing"
