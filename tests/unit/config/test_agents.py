from __future__ import annotations

import json
from typing import Any

import pytest

from seedcore.config.agent_import import ALLOWED_PATH
from seedcore.config.organism_file import parse_config
from tests.support.configs import AGENT, HEAD, faults, only, organ, organism

INIT = "class x:\n def __init__(self, a): ...\n"


@pytest.mark.parametrize(
    ("source", "name", "problem"),
    [
        ("", "absent", "cannot be loaded: module '{m}' has no 'absent'"),
        ("class Worker: ...", "Wroker", "cannot be loaded: module '{m}' has no 'Wroker' (did you mean 'Worker'?)"),
        ("raise SystemExit(3)", "x", "cannot be loaded: cannot import module '{m}': SystemExit: 3"),
        ("raise KeyboardInterrupt", "x", "cannot be loaded: cannot import module '{m}': KeyboardInterrupt"),
        ("import sys; sys.exit()", "x", "cannot be loaded: cannot import module '{m}': SystemExit"),
        ("1/0", "x", "cannot be loaded: cannot import module '{m}': ZeroDivisionError: division by zero"),
        (
            "raise ValueError('two\\nlines')",
            "x",
            "cannot be loaded: cannot import module '{m}': ValueError: two",
        ),
        (
            "import surely_not_there",
            "x",
            "cannot be loaded: cannot import module '{m}': ModuleNotFoundError: No module named 'surely_not_there'",
        ),
        ("def x(:", "x", "cannot be loaded: cannot import module '{m}': SyntaxError: invalid syntax ({m}.py, line 1)"),
        (
            "def __getattr__(name): raise SystemExit(1)",
            "x",
            "cannot be loaded: module '{m}' raised at the attribute 'x': SystemExit: 1",
        ),
    ],
)
def test_an_agent_that_does_not_load_is_a_fault_at_its_path(module: Any, source: str, name: str, problem: str) -> None:
    m = module(source)
    expected = f"agent '{m}:{name}' {problem.replace('{m}', m)}, expected {ALLOWED_PATH}"
    assert faults(HEAD.replace(AGENT, f"{m}:{name}")) == [(6, 16, expected)]


def test_a_module_that_is_not_there_is_a_fault_at_its_path() -> None:
    text = HEAD.replace(AGENT, "seedcore.nowhere:Agent")
    cause = "there is no module 'seedcore.nowhere' in this Python environment"
    begin = f"agent 'seedcore.nowhere:Agent' cannot be loaded: {cause}"
    assert faults(text) == [(6, 16, f"{begin}, expected {ALLOWED_PATH}")]


@pytest.mark.parametrize(
    "path", ["", "seedcore.agents", "seedcore.agents:", ":x", "a..b:x", "a:b:c", "a b:c", ".a:b", "a-b:c"]
)
def test_a_path_of_another_form_is_a_fault_without_an_import(path: str) -> None:
    text = HEAD.replace(AGENT, json.dumps(path))
    expected = [(6, 16, f"agent is {path!r}, expected {ALLOWED_PATH}")]
    assert faults(text) == faults(text, check_imports=False) == expected


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = 3", "it is of type int, expected a class with a method 'execute' or a function"),
        ("import json as x", "it is of type module, expected a class with a method 'execute' or a function"),
        ("class x:\n def __init__(self, agent_id): ...", "class x has no method 'execute(task)'"),
        (
            f"{INIT} execute = 1",
            "'execute' of class x is of type int, expected a method",
        ),
        (
            f"{INIT} def execute(self): ...",
            "'execute' of class x must accept one argument, the task",
        ),
        (
            f"{INIT} def execute(self, task): ...\n def start(self, when): ...",
            "'start' of class x requires arguments, expected none",
        ),
        (
            f"{INIT} def execute(self, task): ...\n stop = 'now'",
            "'stop' of class x is of type str, expected a method",
        ),
        (
            f"import abc\n{INIT.replace('x:', 'x(abc.ABC):')} @abc.abstractmethod\n def execute(self, task): ...",
            "class x is abstract, it does not implement execute",
        ),
        ("class x:\n def execute(self, task): ...", "x accepts no positional argument for the agent id"),
        ("def x(): ...", "x accepts no positional argument for the task"),
        (
            "def x(*, task): ...",
            "x accepts no positional argument for the task; x requires the option 'task', which is missing",
        ),
        ("def x(task, size): ...", "x requires the option 'size', which is missing"),
        ("def x(task, size, /): ...", "x requires a second positional argument 'size', expected options by name"),
    ],
)
def test_something_that_cannot_be_an_agent_is_a_fault_at_its_path(module: Any, source: str, problem: str) -> None:
    m = module(source)
    found = faults(HEAD.replace(AGENT, f"{m}:x"))
    assert [(line, column) for line, column, _ in found] == [(6, 16)] * len(found)
    assert sorted(message for _, _, message in found) == sorted(
        f"agent '{m}:x': {part}" for part in problem.split("; ")
    )


def test_options_that_do_not_fit_are_faults_at_their_keys(module: Any) -> None:
    m = module("class x:\n def __init__(self, agent_id, *, size, kind='a'): ...\n def execute(self, task): ...\n")
    text = HEAD.replace(AGENT, f"{m}:x") + "        options:\n          knd: 1\n          agent_id: x\n"
    assert faults(text) == [
        (6, 16, f"agent '{m}:x': x requires the option 'size', which is missing"),
        (8, 11, f"agent '{m}:x': x does not accept the option 'knd', expected one of: size, kind"),
        (9, 11, f"agent '{m}:x': option 'agent_id' of x is the parameter for the agent id and cannot be set"),
    ]


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("def x(task): ...", {}),
        ("async def x(task, *, size): ...", {"size": 1}),
        ("def x(*things, **options): ...", {"anything": 1, "at-all": 2}),
        ("def x(task, /, **options): ...", {"task": 1}),
        ("class x:\n def __init__(self, agent_id): ...\n @staticmethod\n def execute(task): ...", {}),
        ("class x:\n def __init__(self, agent_id): ...\n @classmethod\n async def execute(cls, task): ...", {}),
        (
            "class x:\n def __init__(self, agent_id, n=1): ...\n def execute(self, task, more=1): ...\n start = None",
            {"n": 2},
        ),
        ("class _Callable:\n def __call__(self, task): ...\nx = _Callable()", {}),
        ("import functools\nx = functools.partial(lambda task, size: 0, size=1)", {}),
        (
            "import typing\nclass x(typing.NamedTuple):\n agent_id: str\n size: int\n def execute(self, task): ...",
            {"size": 1},
        ),
    ],
)
def test_every_form_of_agent_is_accepted(module: Any, source: str, options: dict[str, Any]) -> None:
    m = module(source)
    assert only(agent=f"{m}:x", options=options).options == options


def test_a_nested_class_can_be_named(module: Any) -> None:
    m = module("class a:\n class b:\n  def __init__(self, agent_id): ...\n  def execute(self, task): ...")
    assert only(agent=f"{m}:a.b").agent == f"{m}:a.b"


def test_without_imports_the_agents_are_not_looked_at() -> None:
    (spec,) = parse_config(organism(organ(agent="surely.not:there")), check_imports=False).organs
    assert spec.agent == "surely.not:there"


def test_what_a_module_prints_does_not_reach_stdout(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    m = module("print('hello')\ndef x(task): ...")
    only(agent=f"{m}:x")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_module_is_imported_once_for_many_organs(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    m = module("print('loading')\nraise ValueError('no')")
    found = faults(organism(organ(agent=f"{m}:x"), organ(id="two", agent=f"{m}:x")))
    assert len(found) == 2
    assert capsys.readouterr().err == "loading\n"
