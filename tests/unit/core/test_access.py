"""Test the file of named tokens: its content, its permissions, and the rejected input."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from seedcore.core.access import Access, Scope, TokenFile, find
from seedcore.core.errors import ConfigError


@pytest.mark.parametrize("scope", list(Scope))
def test_a_token_is_found_by_its_text_until_it_expires_or_is_revoked(tmp_path: Path, scope: Scope) -> None:
    file = TokenFile(tmp_path)
    text = file.add("ci", scope, now=1000.0, lifetime_s=60.0)
    other = file.add("other", Scope.READ, now=1000.0)

    assert find(file.read(), text.encode(), 1059.0) == Access("ci", scope)
    assert find(file.read(), text.encode(), 1060.0) is None
    assert find(file.read(), other.encode(), 9e9) == Access("other", Scope.READ)
    assert find(file.read(), b"", 1000.0) is None
    file.revoke("ci")
    assert find(file.read(), text.encode(), 1001.0) is None
    assert [one.name for one in file.read()] == ["other"]


def test_the_file_holds_no_token_and_is_for_its_owner_only(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "state")
    text = file.add("ci", Scope.SUBMIT, now=0.0)

    assert text not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_scopes_allow_what_is_below_them() -> None:
    allowed = {scope: [str(needed) for needed in Scope if scope.covers(needed)] for scope in Scope}

    assert allowed == {
        Scope.READ: ["read"],
        Scope.SUBMIT: ["read", "submit"],
        Scope.OPERATE: ["read", "submit", "operate"],
    }


@pytest.mark.parametrize("name", ["", "a b", "cluster", "x" * 65, "-x", "a\nb", "\u00e9"])
def test_a_name_that_a_log_could_not_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected up to 64 letters"):
        TokenFile(tmp_path).add(name, Scope.READ, now=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    file.add("ci", Scope.READ, now=0.0)

    with pytest.raises(ConfigError, match="token 'ci' exists already; revoke it first"):
        file.add("ci", Scope.OPERATE, now=0.0)
    with pytest.raises(ConfigError, match="no token 'nobody'; existing tokens: ci"):
        file.revoke("nobody")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"tokens": [1]}', '{"tokens": [{"name": "a"}]}', '{"tokens": [{"name": "a", "scope": "x"}]}'],
)
def test_a_damaged_file_is_said_and_not_written_over(tmp_path: Path, text: str) -> None:
    file = TokenFile(tmp_path)
    file.path.write_text(text)

    with pytest.raises(ConfigError, match="is damaged"):
        file.add("ci", Scope.READ, now=0.0)
    assert file.path.read_text() == text
