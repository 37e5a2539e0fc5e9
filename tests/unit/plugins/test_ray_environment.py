"""What every Ray process gets into its environment, as the role's templates render it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "ray"


def environment(**variables: Any) -> dict[str, Any]:
    loader = DataLoader()
    found: dict[str, Any] = {}
    for path in [ROLE / "defaults" / "main.yml", *sorted((ROLE / "vars" / "main").glob("*.yml"))]:
        found.update(loader.load_from_file(str(path), trusted_as_template=True))
    found.update({"ray_token_path": "/token", "ray_temp_dir": "/tmp/ray", "ray_prefix": "/opt/ray", **variables})
    rendered = Templar(loader=loader, variables=found).template(found["__ray_environment"])
    assert isinstance(rendered, dict)
    return rendered


@pytest.mark.parametrize("is_head", [True, False])
def test_every_node_has_rays_old_habits(*, is_head: bool) -> None:
    found = environment(__ray_is_head=is_head)

    assert found["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
    assert found["RAY_maximum_gcs_destroyed_actor_cached_count"] == "1000"


def test_a_deployment_may_choose_otherwise() -> None:
    found = environment(__ray_is_head=True, ray_environment={"RAY_maximum_gcs_destroyed_actor_cached_count": "5"})

    assert found["RAY_maximum_gcs_destroyed_actor_cached_count"] == "5"
