"""Test `seedcore token`: it shows a token once, lists tokens without their text, and removes a revoked one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from seedcore.cli.app import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("SEEDCORE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    return Runner()


class Runner:
    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["token", *arguments])


def test_a_token_is_added_listed_and_revoked(run: Runner) -> None:
    added = run("add", "ci", "--scope", "submit", "--expires-in", "30d")
    assert added.exit_code == 0, added.output
    token = added.stdout.strip()
    assert token.startswith("sct_")
    assert run("add", "grafana", "--scope", "read").exit_code == 0

    listed = run("list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["NAME", "SCOPE"], ["ci", "submit"], ["grafana", "read"],
    ]  # fmt: skip
    assert token not in listed.stdout
    entries = json.loads(run("list", "--json").stdout)
    assert [(entry["name"], entry["expires"] is None, entry["valid"]) for entry in entries] == [
        ("ci", False, True), ("grafana", True, True),
    ]  # fmt: skip

    assert run("revoke", "ci").exit_code == 0
    assert [entry["name"] for entry in json.loads(run("list", "--json").stdout)] == ["grafana"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "ci"), "Missing option '--scope'"),
        (("add", "ci", "--scope", "root"), "'root' is not one of"),
        (("add", "a b", "--scope", "read"), "got 'a b', expected up to 64 letters"),
        (("add", "ci", "--scope", "read", "--expires-in", "soon"), "got 'soon', expected a number with a unit: 30d"),
        (("revoke", "ci"), "no token 'ci'; existing tokens: none"),
    ],
)
def test_bad_input_gets_one_error_and_writes_nothing(
    run: Runner, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run(*arguments)

    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "http_tokens.json").exists()
