from __future__ import annotations

from tests.deploy.conftest import make_deployment, package

__all__ = ["make_deployment", "package"]
