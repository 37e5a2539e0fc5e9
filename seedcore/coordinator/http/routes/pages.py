"""``GET /`` and ``GET /docs``: web pages without data."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from fastapi import APIRouter, Response

from seedcore.coordinator.http.middleware import Page

_STATIC = Path(__file__).parents[1] / "static"
_INCLUDE = re.compile(r"<!-- include ([a-z]+\.(html|css|js)) -->\n")
_WRAPPED = {"css": "<style>\n{}</style>\n", "js": "<script>\n{}</script>\n", "html": "{}"}
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def read_pages() -> dict[str, Page]:
    """Return the pages by their paths."""
    return {"/": _page("page.html"), "/docs": _page("docs.html")}


def router(pages: Mapping[str, Page]) -> APIRouter:
    """Return a route for each page."""
    routes = APIRouter()
    for path, page in pages.items():
        answer = Response(page.body, media_type="text/html", headers={"Content-Security-Policy": page.policy})
        routes.add_api_route(path, _always(answer), include_in_schema=False)
    return routes


def _always(answer: Response) -> Callable[[], Awaitable[Response]]:
    async def endpoint() -> Response:
        return answer

    return endpoint


def _page(name: str) -> Page:
    """Read a page with its includes, and allow exactly its own scripts and styles in its policy."""

    def included(found: re.Match[str]) -> str:
        return _WRAPPED[found[2]].replace("{}", (_STATIC / found[1]).read_text(encoding="utf-8"))

    text = _INCLUDE.sub(included, (_STATIC / name).read_text(encoding="utf-8"))
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for kind, code in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        digests[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(digests['script'])}; style-src {' '.join(digests['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(text.encode(), policy)
