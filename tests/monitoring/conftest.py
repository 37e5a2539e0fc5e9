from __future__ import annotations

from tests.deploy.conftest import (
    make_deployment,
    package,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_terminal_summary,
)

__all__ = [
    "make_deployment",
    "package",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_terminal_summary",
]
