"""Test the environment of every Ray process, rendered from the role's templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("host", ["head-1", "worker-1"])
def test_every_node_has_rays_old_habits(variable: Callable[..., Any], host: str) -> None:
    found = variable("__ray_environment", host=host)

    assert found["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
    assert found["RAY_maximum_gcs_destroyed_actor_cached_count"] == "1000"


def test_a_deployment_may_choose_otherwise(variable: Callable[..., Any]) -> None:
    found = variable("__ray_environment", ray_environment={"RAY_maximum_gcs_destroyed_actor_cached_count": "5"})

    assert found["RAY_maximum_gcs_destroyed_actor_cached_count"] == "5"


def test_what_goes_to_the_cluster_goes_past_a_proxy(variable: Callable[..., Any]) -> None:
    proxy = {"http_proxy": "http://proxy.example:3128", "no_proxy": "intern.example"}
    found = variable("__ray_environment", ray_environment=proxy)

    assert found["http_proxy"] == "http://proxy.example:3128"
    for name in ("no_proxy", "NO_PROXY"):
        assert {"127.0.0.1", "localhost", "10.0.0.1", "intern.example"} <= set(found[name].split(","))
