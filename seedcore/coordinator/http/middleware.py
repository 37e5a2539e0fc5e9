"""Handle every request first: its id, the token, HEAD, common headers, and a guard around internal errors.

It is plain ASGI, so it buffers nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Scope_

from seedcore.core.access import CLUSTER_TOKEN, Access, Scope
from seedcore.core.errors import Executed
from seedcore.core.task import failure

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OPEN_PATHS = frozenset({"/livez", "/readyz"})
_ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


_SCOPE_KEY = "seedcore.request_id"
_ACCESS_KEY = "seedcore.access"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# The access of every request without authentication.
_ANYBODY = Access("anybody", Scope.OPERATE)

FindAccess = Callable[[bytes], Awaitable[Access | None]]
"""Returns the origin of some credentials, None if they match no token."""

# Methods whose errors are logged; GET answers 503 as long as something is wrong.
_WORTH_A_LINE = 400


def request_id(scope: Scope_) -> str:
    """Return the id of a request that has passed the Gate."""
    return str(scope[_SCOPE_KEY])


def access_of(scope: Scope_) -> Access:
    """Return the origin and scope of a request that has passed the Gate."""
    access: Access = scope[_ACCESS_KEY]
    return access


def lacking(access: Access, needed: Scope) -> str:
    """Return the error text for a token whose scope is not sufficient."""
    return f"the token {access.name!r} has the scope {access.scope}; this needs {needed}"


@dataclass(frozen=True, slots=True)
class Page:
    """A static HTML page without data, and its content security policy."""

    body: bytes
    policy: str


class Gate:
    """The outermost layer of the application.

    A browser cannot send a token when it opens a page. A request without a token for one of ``pages`` therefore gets
    401, with the page as the body: the page has no data, asks for the token, and sends it with its own requests.
    Programs (which do not accept text/html explicitly) get the error as JSON.

    Args:
        app: The application behind the gate.
        token: The cluster's token, which permits everything; None turns authentication off.
        named: Returns the origin and scope of any other token.
        pages: Path to the page that asks for the token there.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, named: FindAccess, pages: Mapping[str, Page]) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._named = named
        self._pages = pages

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = _identify(scope)
        answer = _Answer(send, is_head=scope["method"] == "HEAD", identity=identity)
        scope = {**scope, "method": "GET" if answer.is_head else scope["method"], _SCOPE_KEY: identity}
        try:
            if not await self._refused(scope, answer.send):
                await self._app(scope, receive, answer.send)
            if answer.status >= _WORTH_A_LINE and scope["method"] != "GET":
                logger.info(
                    "request refused or failed: id=%s method=%s path=%r status=%d",
                    identity,
                    scope["method"],
                    scope["path"][:200],
                    answer.status,
                )
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _being_cancelled() and not answer.started:
                # Only a stop of the server cancels a request; its task ends here, so there is no caller to re-raise to.
                message = "the Coordinator is stopping"
                headers = {"Retry-After": "5"}
                await _send_error(answer.send, 503, "StoppingError", message, headers, executed="unknown")
                return
            logger.exception("request failed: id=%s method=%s path=%r", identity, scope["method"], scope["path"][:200])
            if answer.started:
                raise
            message = "the Coordinator's HTTP server failed, see its log"
            await _send_error(answer.send, 500, "InternalError", message, executed="unknown")

    async def _refused(self, scope: Scope_, send: Send) -> bool:
        headers = Headers(scope=scope)
        if scope["path"] in OPEN_PATHS:
            return False
        if self._token is None:
            refusal = _foreign(headers)
            if refusal is not None:
                await _send_error(send, 403, "Forbidden", refusal)
            scope[_ACCESS_KEY] = _ANYBODY
            return refusal is not None
        scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            challenge = {"WWW-Authenticate": 'Bearer realm="seedcore"'}
            page = self._pages.get(scope["path"]) if scope["method"] == "GET" else None
            if page is not None and "text/html" in headers.get("accept", ""):
                policy = {"Content-Security-Policy": page.policy, **challenge}
                await _send(send, 401, "text/html; charset=utf-8", page.body, policy)
            else:
                await _send_error(
                    send, 401, "Unauthorized", "send the cluster's token as Authorization: Bearer <token>", challenge
                )
            return True
        # Header values are bytes; starlette decodes them as latin-1.
        given = credentials.encode("latin-1")
        is_cluster = hmac.compare_digest(given, self._token)
        access = Access(CLUSTER_TOKEN, Scope.OPERATE) if is_cluster else await self._named(given)
        if access is None:
            await _send_error(send, 403, "Forbidden", "the token is wrong, expired or revoked")
            return True
        needed = Scope.READ if scope["method"] in _READING else Scope.SUBMIT
        if not access.scope.covers(needed):
            await _send_error(send, 403, "Forbidden", lacking(access, needed))
            return True
        scope[_ACCESS_KEY] = access
        return False


class _Answer:
    """Pass an answer on, with the common headers, and without a body for HEAD."""

    def __init__(self, send: Send, *, is_head: bool, identity: str) -> None:
        self.is_head = is_head
        self.started = False
        self.status = 0
        self._identity = identity
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _ALWAYS.items():
                headers[name] = value
            headers[REQUEST_ID] = self._identity
        elif self.is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


async def _send_error(
    send: Send,
    status: int,
    error_type: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    executed: Executed = "no",
) -> None:
    body = json.dumps(failure(message, error_type=error_type, executed=executed)).encode()
    await _send(send, status, "application/json", body, headers or {})


async def _send(send: Send, status: int, content_type: str, body: bytes, headers: Mapping[str, str]) -> None:
    raw = {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in raw.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _foreign(headers: Headers) -> str | None:
    """Return why a request from a browser looks like a foreign page's, if there is no authentication; else None.

    A name with a dot proves nothing, because its owner can point it at this machine (DNS rebinding); an address or a
    name without a dot does. Only browsers send Origin.
    """
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = "."
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if "." in name:
            return "without authentication this server accepts only an address or a name without a dot as Host"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return "requests from pages of other sites are not allowed"
    return None


def _identify(scope: Scope_) -> str:
    """Return the id that the client has sent, if it is safe to log, else a new one."""
    sent = Headers(scope=scope).get(REQUEST_ID, "")
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
