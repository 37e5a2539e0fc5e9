from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from importlib.util import find_spec
from inspect import isfunction
from pathlib import Path

import pytest

from seedcore.coordinator.actors import CoordinatorActor
from seedcore.core.moved import METHODS, MOVED
from seedcore.organ.organ import Organ


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_same_module_and_says_the_new_one(old: str, new: str) -> None:
    code = (
        f"import sys, warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        f"try: import {old}\n"
        f"except DeprecationWarning as warning: print(warning)\n"
        f"warnings.simplefilter('ignore')\n"
        f"import {old} as a, {new} as b; print(a is b, b.__name__, b.__spec__.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{old} is now {new}; release 0.3 removes the old name",
        f"True {new} {new}",
    ]


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"seedcore\.nothing"):
        __import__("seedcore.nothing")


def test_what_is_imported_from_a_package_that_loads_its_names_late_is_there() -> None:
    """Check imports from packages with a ``__getattr__``, where a type checker accepts any name, even a moved one."""
    late = {name: importlib.import_module(name) for name in ("seedcore", "seedcore.config", "seedcore.coordinator")}
    missing = [
        f"{path.name}:{node.lineno} from {node.module} import {name.name}"
        for path in Path(late["seedcore"].__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in late
        for name in node.names
        if name.name not in {*late[node.module].__all__, *dir(late[node.module])}
        and find_spec(f"{node.module}.{name.name}") is None
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "actor"),
    [(b"seedcore.actor\nCoordinatorActor", CoordinatorActor), (b"seedcore.organism.organ\nOrgan", Organ)],
)
def test_the_class_of_an_actor_that_an_older_release_has_started_is_found(name: bytes, actor: type) -> None:
    # The form in which Ray stores it. If Ray finds no class, its methods accept no arguments, which broke an upgrade.
    assert pickle.loads(b"c" + name + b"\n.") is actor


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_class_of_an_older_release_loads_though_a_method_has_gone(method: str) -> None:
    # The form in which Ray pickles a reference to a method.
    pickled = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text
        for text in (b"seedcore.coordinator.coordinator", f"Coordinator.{method}".encode())
    )
    assert callable(pickle.loads(pickled + b"\x93."))
    assert method not in dir(CoordinatorActor), "it is there, and in no list of those that have gone"


def test_no_method_of_an_actor_goes_without_a_word_to_older_releases() -> None:
    path = Path(__file__).with_name("actor_methods.txt")
    ever = {line for line in path.read_text().splitlines() if not line.startswith("#")}
    actors = (CoordinatorActor, Organ)
    now = {
        name
        for actor in actors
        for name in dir(actor)
        if isfunction(getattr(actor, name)) and not hasattr(object, name)
    }
    assert ever - now - METHODS == set(), "add what has gone to METHODS in seedcore/core/moved.py"
    assert now - ever == set(), f"add what is new to {path.name}"


def test_no_other_method_of_an_actor_is_made_up() -> None:
    assert not hasattr(CoordinatorActor, "_nothing")
