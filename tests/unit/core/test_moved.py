from __future__ import annotations

import subprocess
import sys

import pytest

from seedcore.core.moved import MOVED


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
        f"{old} is now {new}; the old name goes in release 0.3",
        f"True {new} {new}",
    ]


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"seedcore\.nothing"):
        __import__("seedcore.nothing")
