"""Test the read-only endpoints and their authentication."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest

from scripts.example_coordinator import ExampleCoordinator
from seedcore.coordinator.http import create_app

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import Serve, View

# A new route is checked like the others.
ROUTES = create_app(ExampleCoordinator(), token="any").openapi()["paths"]
READABLE = [*(path for path, methods in ROUTES.items() if "get" in methods), "/", "/docs", "/openapi.json"]
OPEN = ["/livez", "/readyz"]
GUARDED = [*(path for path in READABLE if path not in OPEN), "/nothing-here", "/livez/", "/coordinator/tasks"]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_status_is_200_with_the_body_of_get_status_when_healthy(client: httpx.AsyncClient, view: View) -> None:
    answer = await client.get("/coordinator/status")
    assert answer.status_code == 200
    assert answer.json() == view.said
    assert "retry-after" not in answer.headers


async def test_status_is_503_with_retry_after_while_initializing(client: httpx.AsyncClient, view: View) -> None:
    view.initializing()
    answer = await client.get("/coordinator/status")
    assert (answer.status_code, answer.json()) == (503, view.said)
    assert int(answer.headers["retry-after"]) >= 1


async def test_status_is_503_without_retry_after_when_unhealthy(client: httpx.AsyncClient, view: View) -> None:
    view.said |= {"status": "unhealthy", "error": "an organ is down"}
    answer = await client.get("/coordinator/status")
    assert (answer.status_code, answer.json()) == (503, view.said)
    assert "retry-after" not in answer.headers


async def test_degraded_is_healthy_for_http(client: httpx.AsyncClient, view: View) -> None:
    view.said |= {"degraded": True, "reason": "degraded"}
    assert (await client.get("/coordinator/status")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("status", ["healthy", "initializing", "unhealthy"])
async def test_livez_and_readyz_are_open_and_tell_no_more_than_needed(serve: Serve, view: View, status: str) -> None:
    view.said |= {"status": status, "message": "secret detail"}
    client = await serve()
    del client.headers["Authorization"]
    live, ready = await client.get("/livez"), await client.get("/readyz")
    assert (live.status_code, live.json()) == (200, {"alive": True})
    assert ready.status_code == (200 if status == "healthy" else 503)
    assert ready.json() == {"ready": status == "healthy", "status": status}


async def test_organism_status_is_the_list_of_organs(client: httpx.AsyncClient, view: View) -> None:
    answer = await client.get("/organism/status")
    assert (answer.status_code, answer.json()) == (200, view.organs)


async def test_without_a_token_everything_guarded_is_401(client: httpx.AsyncClient, view: View) -> None:
    del client.headers["Authorization"]
    useless = [None, "", "Bearer", "Basic c2VzYW1lLTdmM2E=", "sesame-7f3a", "Token sesame-7f3a"]
    methods = ["GET", "HEAD", "POST", "OPTIONS", "DELETE"]
    for path, method, header in itertools.product(GUARDED, methods, useless):
        headers = {} if header is None else {"Authorization": header}
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == 401, (path, method, header)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        if method != "HEAD":
            assert answer.json()["error_type"] == "Unauthorized"
    assert not view.tasks


async def test_a_wrong_token_is_403(client: httpx.AsyncClient, token: str) -> None:
    wrong = [b"x", b"sesame-7f3", b"sesame-7f3a-and-more", b"SESAME-7F3A", b"sesame-7f3a x", b"s\xe9same-7f3a"]
    for path, value in itertools.product(GUARDED, wrong):
        answer = await client.get(path, headers={b"Authorization": b"Bearer " + value, b"Accept": b"text/html"})
        assert (answer.status_code, answer.json()["error_type"]) == (403, "Forbidden"), (path, value)
        assert token not in answer.text


@pytest.mark.parametrize("header", ["Bearer sesame-7f3a", "bearer sesame-7f3a", "BEARER   sesame-7f3a"])
async def test_the_right_token_passes(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get("/coordinator/status", headers={"Authorization": header})
    assert answer.status_code == 200


async def test_without_authentication_everything_is_open(serve: Serve) -> None:
    client = await serve(token=None)
    codes = {path: (await client.get(path)).status_code for path in READABLE}
    # This Coordinator has no inbox.
    durable = ("/coordinator/tasks", "/coordinator/schedules")
    expected = {path: 404 if path.startswith(durable) else 200 for path in READABLE}
    assert codes == expected


def test_an_empty_token_is_refused(view: View) -> None:
    with pytest.raises(ValueError, match="empty"):
        create_app(view, token=" ")


async def test_head_is_get_without_the_body(client: httpx.AsyncClient) -> None:
    for path in [*READABLE, "/nothing-here"]:
        got, headed = await client.get(path), await client.head(path)
        assert headed.status_code == got.status_code
        assert headed.content == b""
        for answer in (got, headed):
            del answer.headers["date"], answer.headers["x-request-id"]
        assert headed.headers == got.headers
        assert int(headed.headers["content-length"]) == len(got.content)


async def test_nothing_may_be_stored(client: httpx.AsyncClient) -> None:
    for path, header in itertools.product([*READABLE, "/nothing-here"], ["Bearer sesame-7f3a", "Bearer wrong", ""]):
        answer = await client.get(path, headers={"Authorization": header})
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_errors_of_routing_have_the_documented_shape(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nothing-here")
    assert (missing.status_code, missing.json()["error_type"]) == (404, "NotFound")
    wrong = await client.post("/coordinator/status")
    assert (wrong.status_code, wrong.json()["success"]) == (405, False)
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert (await client.get("/coordinator/tasks/a/retry")).headers["allow"] == "POST"


async def test_a_view_that_raises_leaks_nothing(
    client: httpx.AsyncClient, view: View, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("the inside of the view")

    monkeypatch.setattr(view, "status", broken)
    for path in ("/coordinator/status", "/metrics", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error_type"]) == (500, "InternalError")
        assert "inside of the view" not in answer.text
        assert "Traceback" not in answer.text
    assert "the inside of the view" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_browser_without_token_gets_the_page_as_text_of_the_401(client: httpx.AsyncClient, path: str) -> None:
    del client.headers["Authorization"]
    answer = await client.get(path, headers=HTML)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'id="token-form"' in answer.text
    assert "script-src 'sha256-" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_use_nothing_from_outside_and_hold_no_data(
    client: httpx.AsyncClient, view: View, token: str, path: str
) -> None:
    answer = await client.get(path, headers=HTML)
    assert answer.status_code == 200
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", answer.text)
    sources = re.findall(r"""(?:(?:src|href|action)=|url\(|@import)\s*["']?([^"'\s>)]*)""", answer.text)
    assert {source for source in sources if not source.startswith("#shape-")} <= {"data:,", "docs", "./"}
    assert token not in answer.text
    assert view.said["release"] not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert 'lang="en"' in answer.text


async def test_openapi_document_is_whole(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    operations = {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) >= {
        ("/coordinator/activity", "get"),
        ("/coordinator/status", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/organism/status", "get"),
        ("/metrics", "get"),
        ("/coordinator/tasks", "post"),
    }
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for reference in _references(document):
        target: Any = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]
        assert isinstance(target, dict)
    assert set(operations["/coordinator/tasks", "post"]["responses"]) == {
        f"{code}" for code in (200, 202, 400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503, 504)
    }
    assert document["security"] == [{"token": []}]
    assert operations["/livez", "get"]["security"] == operations["/readyz", "get"]["security"] == []


async def test_examples_are_of_the_documented_shapes(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    registry = {"$defs": document["components"]["schemas"]}
    schemas = json.loads(json.dumps(registry).replace("#/components/schemas/", "#/$defs/"))
    checked = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            bodies = [*operation["responses"].items(), ("body", operation.get("requestBody", {}))]
            for code, body in bodies:
                content = body.get("content", {}).get("application/json")
                if content is None:
                    continue
                assert content.get("examples"), f"{path} {code} has no example"
                schema = json.loads(json.dumps(content["schema"]).replace("#/components/schemas/", "#/$defs/"))
                for example in content["examples"].values():
                    jsonschema.validate(example["value"], {**schemas, **schema})
                    checked += 1
    assert checked > 20


async def test_openapi_without_authentication_names_no_token(serve: Serve) -> None:
    document = (await (await serve(token=None)).get("/openapi.json")).json()
    assert "security" not in document
    assert "securitySchemes" not in document["components"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [reference for value in node.values() for reference in _references(value)]
    if isinstance(node, list):
        return [reference for value in node for reference in _references(value)]
    return []
