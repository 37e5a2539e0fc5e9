"""Ask the Coordinator over its HTTP: a command that does so joins no cluster and needs no Ray in its process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seedcore.errors import ClusterError
from seedcore.rest import Response, request
from seedcore.status import probe

if TYPE_CHECKING:
    from seedcore.settings import Settings

# An answer that travels may come this much later than the Coordinator's own limit ends the task.
MARGIN_S = 10.0
# While a task without a limit of the caller's runs, only signs of life can end the wait.
NO_LIMIT_S = 30 * 24 * 3600.0
LIFE_INTERVAL_S = 5.0
LIFE_TIMEOUT_S = 5.0
SIGNS_MISSED = 2
_REFUSALS = {401: "wants a token", 403: "refuses this token"}


def pong(settings: Settings, *, timeout_s: float) -> dict[str, Any]:
    """Return what the Coordinator says of itself; that it says anything at all is the answer.

    Raises:
        OSError: It does not answer in time.
        ClusterError: It refuses this caller, or something else listens in its place.
    """
    response = _get(settings, "/coordinator/status", timeout_s=timeout_s)
    body = _body(settings, response)
    if "status" not in body:
        raise _stranger(settings, response)
    return body


def activity(settings: Settings) -> dict[str, Any] | None:
    """Return ``GET /coordinator/activity``, or None where it cannot be had."""
    try:
        response = _get(settings, "/coordinator/activity", timeout_s=LIFE_TIMEOUT_S)
    except OSError:
        return None
    known = isinstance(response.body, Mapping) and "samples" in response.body
    return dict(response.body) if known else None


def task_types(settings: Settings) -> list[tuple[str, str]]:
    """Return pairs of a task type and the description of its organ.

    Raises:
        OSError: The Coordinator does not answer at once.
    """
    response = _get(settings, "/organism/status", timeout_s=1.0)
    organs = response.body if isinstance(response.body, list) else []
    return [
        (str(kind), str(organ.get("description") or "")) for organ in organs for kind in organ.get("task_types", ())
    ]


def task(settings: Settings, document: Mapping[str, Any], *, timeout_s: float | None) -> dict[str, Any]:
    """Hand a task to the Coordinator and return its answer, in the documented shape.

    Args:
        settings: Where it is.
        document: The task.
        timeout_s: Seconds the task may take; without it the wait lasts as long as the Coordinator lives.

    Raises:
        ClusterError: There is no answer; ``reason`` is that of the status.
    """
    token = settings.token()
    url = f"{settings.http_url}/coordinator/tasks"
    limit = NO_LIMIT_S if timeout_s is None else timeout_s + MARGIN_S
    outcome: list[Response | OSError] = []

    def post() -> None:
        try:
            outcome.append(
                request(
                    url,
                    method="POST",
                    token=token,
                    body=dict(document),
                    timeout_s=limit,
                    certificate=settings.http_tls_cert,
                )
            )
        except OSError as error:
            outcome.append(error)

    worker = threading.Thread(target=post, name="submit", daemon=True)
    worker.start()
    missed = 0
    while worker.is_alive() and missed < SIGNS_MISSED:
        worker.join(LIFE_INTERVAL_S)
        if worker.is_alive():
            missed = 0 if _lives(settings) else missed + 1
    result = outcome[0] if outcome else TimeoutError()
    if isinstance(result, OSError):
        raise explain(settings, result) from result
    return answer(settings, result)


def answer(settings: Settings, response: Response) -> dict[str, Any]:
    """Return the answer of a task.

    Raises:
        ClusterError: It is not that of a Coordinator, or the Coordinator refuses this caller.
    """
    body = _body(settings, response)
    if "success" not in body:
        raise _stranger(settings, response)
    return body


def explain(settings: Settings, error: OSError) -> ClusterError:
    """Say why the Coordinator does not answer, as far as the cluster's head knows."""
    report = probe(settings)
    if report.reason == "absent":
        return ClusterError("absent", f"{report.message.rstrip('.')}; `seedcore bootstrap` starts one")
    if report.status != "healthy":
        return ClusterError(report.reason, report.message)
    detail = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    return ClusterError("not_responding", f"the connection to {settings.http_url} failed: {detail}")


def _lives(settings: Settings) -> bool:
    try:
        request(f"{settings.http_url}/livez", timeout_s=LIFE_TIMEOUT_S, certificate=settings.http_tls_cert)
    except OSError:
        return False
    return True


def _get(settings: Settings, path: str, *, timeout_s: float) -> Response:
    url = settings.http_url + path
    return request(url, token=settings.token(), timeout_s=timeout_s, certificate=settings.http_tls_cert)


def _body(settings: Settings, response: Response) -> dict[str, Any]:
    if response.status in _REFUSALS:
        text = f"the Coordinator at {settings.http_url} {_REFUSALS[response.status]} (HTTP {response.status})"
        raise ClusterError("unauthorized", text)
    return dict(response.body) if isinstance(response.body, Mapping) else {}


def _stranger(settings: Settings, response: Response) -> ClusterError:
    body = response.body if isinstance(response.body, Mapping) else {}
    detail = body.get("message") or body.get("error") or body.get("detail")
    text = f"{settings.http_url} answers HTTP {response.status}" + (f": {detail}" if detail else "")
    return ClusterError("not_responding", f"{text}, which is not the answer of a Coordinator")
