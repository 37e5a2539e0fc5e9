from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.ansible.plugins.conftest import Executable

Run = Callable[..., dict[str, Any]]
READ = {"name": "prometheus", "scope": "read", "valid": True}


def head(executable: Executable, *tokens: dict[str, Any]) -> dict[str, Any]:
    """Return the options for a head with these tokens."""
    executable.write(
        f"print({json.dumps(list(tokens))!r} if 'list' in sys.argv else 'f' * 64 if 'add' in sys.argv else '')"
    )
    return {"name": "prometheus", "scope": "read", "executable": str(executable.path)}


def verbs(executable: Executable) -> list[str]:
    return [arguments[1] for arguments, _ in executable.calls()]


def test_a_token_is_made_once(executable: Executable, run: Run) -> None:
    options = head(executable, {**READ, "name": "other"})
    preview = run("seedcore_token", check=True, **options)
    assert (preview["changed"], preview["token"], verbs(executable)) == (True, "", ["list"])

    made = run("seedcore_token", **options)
    assert (made["changed"], made["token"], verbs(executable)[1:]) == (True, "f" * 64, ["list", "add"])

    there = run("seedcore_token", **head(executable, READ))
    assert (there["changed"], there["token"]) == (False, "")


def test_one_that_was_lost_has_expired_or_may_do_something_else_is_replaced(executable: Executable, run: Run) -> None:
    for token, more in ((READ, {"renew": True}), ({**READ, "valid": False}, {}), ({**READ, "scope": "operate"}, {})):
        options = head(executable, token)
        before = len(verbs(executable))
        made = run("seedcore_token", **options, **more)
        assert (made["changed"], made["token"]) == (True, "f" * 64)
        assert verbs(executable)[before:] == ["list", "revoke", "add"]


def test_a_head_that_refuses_is_a_failure_with_its_words(executable: Executable, run: Run) -> None:
    executable.write("sys.stderr.write('the file of the tokens is damaged'); sys.exit(2)")
    failed = run("seedcore_token", name="prometheus", scope="read", executable=str(executable.path))
    assert failed["msg"] == f"{executable.path} token list failed on the head: the file of the tokens is damaged"
