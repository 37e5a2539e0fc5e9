"""The baselines of the benchmarks: the same hops in raw Ray, and the same work behind a Ray Serve handle."""

from __future__ import annotations

import os
from typing import Any

import ray

remote: Any = ray.remote


class Echo:
    """A bare actor: the lower bound for the cost of a Ray call."""

    async def echo(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return the task."""
        return task

    async def pids(self) -> list[int]:
        """Return the ids of the processes involved."""
        return [os.getpid()]


class Relay:
    """The first of two hops: an empty Coordinator."""

    async def __init__(self) -> None:  # type: ignore[misc]  # an async __init__ is Ray's idea
        self._inner = bare_actor(Echo)

    async def echo(self, task: dict[str, Any]) -> dict[str, Any]:
        """Forward the task to the second hop."""
        answer: dict[str, Any] = await self._inner.echo.remote(task)
        return answer

    async def pids(self) -> list[int]:
        """Return the ids of the processes involved."""
        return [os.getpid(), *await self._inner.pids.remote()]


def bare_actor(kind: type, **options: Any) -> Any:
    """Create an actor."""
    return remote(kind).options(**{"num_cpus": 0.01, "max_concurrency": 1000, **options}).remote()


def serve_handle() -> Any:
    """Deploy the same echo with Ray Serve, without its proxies, and return the handle."""
    from ray import serve  # noqa: PLC0415 - it starts things

    class Deployment:
        async def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
            return task

    serve.start(http_options={"location": "NoServer"})
    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.01})
    return serve.run(deployment(Deployment).bind(), name="echo", route_prefix=None)


def serve_shutdown() -> None:
    """Stop what :func:`serve_handle` started."""
    from ray import serve  # noqa: PLC0415 - see there

    serve.shutdown()  # type: ignore[no-untyped-call]
