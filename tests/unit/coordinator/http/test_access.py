"""Test every route with every scope, and named tokens that are added, expire or are revoked while the server runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from seedcore.coordinator.http.app import create_app
from seedcore.coordinator.http.middleware import OPEN_PATHS
from seedcore.coordinator.http.named_tokens import NamedTokens
from seedcore.core.access import OPERATE_TYPES, Scope, TokenFile
from seedcore.core.settings import Settings

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View

Client = Callable[[str], httpx.AsyncClient]
OPERATE = sorted(OPERATE_TYPES)
_OPERATED = tuple(f"/coordinator/{what}" for what in ("schedules", "inbox/copy", "organs/", "nodes/", "rebalance"))
# The cluster's own token.
TOKEN = "sesame-7f3a"


@pytest.fixture
def named(tmp_path: Path) -> NamedTokens:
    return NamedTokens(tmp_path)


@pytest.fixture
def tokens(tmp_path: Path) -> dict[Scope, str]:
    """Return one token per scope."""
    return {scope: TokenFile(tmp_path).add(str(scope), scope, now=time.time()) for scope in Scope}


@pytest.fixture
async def by(view: View, named: NamedTokens, tokens: dict[Scope, str]) -> Client:
    """Return a client with a token that needs no network."""
    await named.refresh()
    app = create_app(view, token=TOKEN, named=named.access)

    def client(credentials: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {credentials}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a", headers=headers)

    return client


def calls(view: View) -> list[tuple[str, str, Any, Scope]]:
    """Return every route, with a body if it accepts one, and the required scope."""
    app = create_app(view, token=None)
    found: list[tuple[str, str, Any, Scope]] = []
    for route in app.routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or set()
        for method in sorted(methods - {"OPTIONS"}):
            if path in OPEN_PATHS:
                continue
            if method in {"GET", "HEAD"}:
                found.append((method, path, None, Scope.READ))
            elif path.endswith("{schedule_id}/run"):
                found.append((method, path, None, Scope.SUBMIT))
            elif path.startswith(_OPERATED) or "{task_id}" in path:
                found.append((method, path, {} if path.endswith("/schedules") else None, Scope.OPERATE))
            else:
                found.append((method, path, {"type": "echo"}, Scope.SUBMIT))
                found += [(method, path, {"type": kind}, Scope.OPERATE) for kind in OPERATE]
    return found


async def test_every_route_lets_those_in_whose_scope_suffices_and_nobody_else(
    by: Client, view: View, tokens: dict[Scope, str]
) -> None:
    wanted = calls(view)
    assert {needed for _, _, _, needed in wanted} == set(Scope)
    for scope, credentials in [*tokens.items(), (Scope.OPERATE, TOKEN)]:
        async with by(credentials) as client:
            for method, path, body, needed in wanted:
                answer = await client.request(method, path, json=body)
                refused = answer.status_code == 403
                assert refused is not scope.covers(needed), (scope, method, path, body)
                if refused and method != "HEAD":
                    assert answer.json()["error"].startswith(
                        f"the token {str(scope)!r} has the scope {scope}; this needs "
                    )
                    assert answer.json()["executed"] == "no"


@pytest.mark.parametrize("kind", [*OPERATE, f" {OPERATE[0].upper()} "])
async def test_a_task_that_operates_is_found_in_a_batch_too_and_written_down(
    by: Client, view: View, tokens: dict[Scope, str], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch = {"type": "execute_many", "params": {"tasks": [{"type": "echo"}, {"type": kind}]}}
    with caplog.at_level(logging.INFO):
        async with by(tokens[Scope.SUBMIT]) as client:
            assert (await client.post("/coordinator/tasks", json=batch)).status_code == 403
            assert view.tasks == []
        async with by(tokens[Scope.OPERATE]) as client:
            assert (await client.post("/coordinator/tasks", json=batch)).status_code == 200

    assert "audit: refused: token='submit'" in caplog.text
    assert "audit: token='operate'" in caplog.text


async def test_a_token_is_valid_at_once_until_it_is_revoked_or_expires(
    by: Client, named: NamedTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenFile(tmp_path)
    text = file.add("later", Scope.READ, now=time.time(), lifetime_s=3600)
    async with by(text) as client:
        assert (await client.get("/coordinator/status")).status_code == 200
        with monkeypatch.context() as later:
            now = time.time()
            later.setattr(time, "time", lambda: now + 3601)
            assert (await client.get("/coordinator/status")).status_code == 403
        file.revoke("later")
        await named.refresh()
        answer = await client.get("/coordinator/status")
        assert (answer.status_code, answer.json()["error"]) == (403, "the token is wrong, expired or revoked")


async def test_while_the_token_of_the_cluster_is_replaced_the_old_and_the_new_one_are_valid(
    view: View, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    settings = Settings(auth_enabled=True, token_path=path)
    named = NamedTokens(tmp_path, settings.token)
    app = create_app(view, token=TOKEN, named=named.access)

    async def codes(*tokens: str) -> list[int]:
        transport, found = httpx.ASGITransport(app), []
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"}
                found.append(
                    (await client.post("/coordinator/tasks", json={"type": "echo"}, headers=headers)).status_code
                )
        return found

    assert await codes(TOKEN, "next") == [200, 403]
    path.write_text("next")
    assert await codes(TOKEN, "next", "another") == [200, 200, 403]
    path.unlink()
    await named.refresh()
    assert await codes(TOKEN, "next") == [200, 403]


async def test_many_unknown_tokens_at_once_cost_a_look_or_two_at_the_file(
    by: Client, named: NamedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, refresh = 0, named.refresh

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await refresh()

    monkeypatch.setattr(named, "refresh", counted)
    async with by("wrong") as client:
        answers = await asyncio.gather(*(client.get("/coordinator/status") for _ in range(50)))

    assert {answer.status_code for answer in answers} == {403}
    assert looks <= 2


async def test_a_damaged_file_lets_nobody_in_but_the_cluster_and_is_said_once(
    by: Client, named: NamedTokens, tokens: dict[Scope, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TokenFile(tmp_path).path.write_text("{")
    for _ in range(3):
        await named.refresh()

    async with by(tokens[Scope.OPERATE]) as client:
        assert (await client.get("/coordinator/status")).status_code == 403
    async with by(TOKEN) as client:
        assert (await client.get("/coordinator/status")).status_code == 200
    assert caplog.text.count("no named token is valid") == 1


@pytest.mark.parametrize("kind", OPERATE)
async def test_without_authentication_everybody_operates_and_that_is_written_down(
    view: View, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = httpx.ASGITransport(create_app(view, token=None))
    with caplog.at_level(logging.INFO):
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.post("/coordinator/tasks", json={"type": kind})).status_code == 200

    assert "audit: token='anybody'" in caplog.text
