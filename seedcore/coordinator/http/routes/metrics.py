"""``GET /metrics``: the text that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from seedcore.coordinator.http.metrics import MetricsPage

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView


def router(view: CoordinatorView) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["status"])
    page = MetricsPage(view)

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
    )
    async def prometheus(request: Request) -> Response:
        body, content_type = page.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return routes
