"""Organs that name an environment of the deployment: their agents are checked in its Python, not in this one."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from seedcore.config import agent_check
from seedcore.config.agent_import import ALLOWED_PATH
from seedcore.config.organism_file import load_config
from seedcore.core.errors import ConfigError

Environment = Callable[..., str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return a function that makes the interpreter of an environment with one module, ``sees``."""

    def make(name: str, source: str) -> str:
        packages = tmp_path / name
        packages.mkdir()
        (packages / "sees.py").write_text(textwrap.dedent(source), encoding="utf-8")
        python = packages / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        return str(python)

    return make


def organism(tmp_path: Path, *organs: str) -> Path:
    """Write a file with these organs, each in YAML's flow style."""
    entries = "".join(f"      - {{type: t, {organ}}}\n" for organ in organs)
    path = tmp_path / "organism.yaml"
    path.write_text(f"seedcore:\n  organism:\n    organ_types:\n{entries}", encoding="utf-8")
    return path


def faults(path: Path, environments: dict[str, str] | None) -> list[str]:
    """Return the faults of a file in a deployment with these environments."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, environments=environments)
    return [fault.message for fault in caught.value.faults]


def test_each_agent_is_checked_where_it_will_run(tmp_path: Path, environment: Environment) -> None:
    old = environment("old", "def work(task, *, depth): ...\ndef gone(task): ...")
    new = environment("new", "import os\nos.system('echo printed by a child')\ndef work(task, *, width): ...")
    path = organism(
        tmp_path,
        "id: a, agent: 'sees:work', environment: old, options: {depth: 1}",
        "id: b, agent: 'sees:work', environment: new, options: {width: 2}",
        "id: c, agent: 'seedcore.agents:utility'",
    )
    known = {"old": old, "new": new}

    spec = load_config(path, environments=known).with_python("/agents/bin/python", known)

    assert [organ.python for organ in spec.organs] == [old, new, ""]

    missing = "cannot be loaded: module 'sees' has no 'gone'"
    wrong = organism(
        tmp_path,
        "id: a, agent: 'sees:work', environment: old, options: {width: 1}",
        "id: b, agent: 'sees:gone', environment: new",
    )
    assert faults(wrong, known) == [
        "in the environment 'old', agent 'sees:work': work requires the option 'depth', which is missing",
        "in the environment 'old', agent 'sees:work': work does not accept the option 'width', expected one of: depth",
        f"in the environment 'new', agent 'sees:gone' {missing}, expected {ALLOWED_PATH}",
    ]


def test_an_environment_that_the_deployment_does_not_have_is_named(tmp_path: Path) -> None:
    path = organism(tmp_path, "id: a, agent: 'seedcore.agents:utility', environment: visoin")

    assert faults(path, {}) == [
        "environment is 'visoin', but the deployment has none: seedcore_environments makes them"
    ]
    assert faults(path, {"vision": "/v/bin/python", "text": "/t/bin/python"}) == [
        "environment is 'visoin', did you mean 'vision'? expected one of: text, vision (seedcore_environments)"
    ]
    # On a developer's machine there is one Python for all organs.
    assert load_config(path).organs[0].environment == "visoin"


@pytest.mark.parametrize("name", ["Vision", "1st", "a/b", "a" * 32])
def test_a_name_that_cannot_be_one_is_a_fault(tmp_path: Path, name: str) -> None:
    path = organism(tmp_path, f"id: a, agent: 'seedcore.agents:utility', environment: '{name}'")
    told = "expected the name of an environment: up to 31 of a-z 0-9 _ -, a letter first"
    assert faults(path, {}) == [f"environment is {name!r}, {told}"]


def test_an_environment_whose_process_ends_or_hangs_is_a_fault(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = environment("ends", "import os\nos._exit(3)")
    hangs = environment("hangs", "import threading\nthreading.Event().wait()")
    path = organism(
        tmp_path,
        "id: a, agent: 'sees:work', environment: ends",
        "id: b, agent: 'sees:work', environment: hangs",
        "id: c, agent: 'sees:work', environment: missing",
    )
    monkeypatch.setattr(agent_check, "TIMEOUT_S", 1.0)

    assert faults(path, {"ends": ends, "hangs": hangs, "missing": "/nowhere/bin/python"}) == [
        "environment 'ends' cannot be checked: the import of its agents ended the process with exit code 3",
        "environment 'hangs' cannot be checked: its agents were not imported within 1 s",
        "environment 'missing' cannot be checked: /nowhere/bin/python cannot be run: No such file or directory",
    ]
