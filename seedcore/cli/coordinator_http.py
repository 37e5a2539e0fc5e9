"""Requests to the Coordinator over HTTP, for commands that do not join Ray."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import ClusterError
from seedcore.status.http_client import ask_coordinator
from seedcore.status.probing import why_silent

if TYPE_CHECKING:
    from seedcore.core.settings import Settings

LIFE_TIMEOUT_S = 5.0


def activity(settings: Settings) -> dict[str, Any] | None:
    """Return ``GET /coordinator/activity``, or None if the request fails."""
    try:
        response = ask_coordinator(settings, "/coordinator/activity", timeout_s=LIFE_TIMEOUT_S)
    except OSError:
        return None
    known = isinstance(response.body, Mapping) and "samples" in response.body
    return dict(response.body) if known else None


def task_types(settings: Settings) -> list[tuple[str, str]]:
    """Return pairs of a task type and the description of its organ.

    Raises:
        OSError: The Coordinator does not answer at once.
    """
    response = ask_coordinator(settings, "/organism/status", timeout_s=1.0)
    organs = response.body if isinstance(response.body, list) else []
    return [
        (str(kind), str(organ.get("description") or "")) for organ in organs for kind in organ.get("task_types", ())
    ]


def task(settings: Settings, document: Mapping[str, Any]) -> dict[str, Any]:
    """Submit a task to the Coordinator and return its answer, in the documented shape.

    Raises:
        ClusterError: There is no answer; ``reason`` is the reason of the status.
    """
    from seedcore.client.background import Background  # noqa: PLC0415 - other commands do without an event loop
    from seedcore.client.http_transport import HttpEngine, NoAnswer  # noqa: PLC0415

    settings.token()
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    engine = Background(partial(HttpEngine, settings, patience_s=0.0))
    engine.add(dict(document), None, answers.put)
    answer = answers.get()
    engine.close()
    if isinstance(answer, NoAnswer):
        trouble = why_silent(settings, answer.error)
        doubt = "" if answer["executed"] == "no" else "; the task may have been executed"
        raise ClusterError(trouble.reason, f"{trouble}{doubt}") from answer.error
    return answer
