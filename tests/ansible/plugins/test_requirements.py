from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.seedcore.cluster.plugins.filter.requirements import FilterModule

ROOT = Path(__file__).parents[3]
beyond = FilterModule().filters()["requirements_beyond"]
BELOW = """
# made by hand
click==8.2.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via ray
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cc
ray[default]==2.60.0
"""


@pytest.mark.parametrize(
    ("entry", "is_beyond"),
    [
        ("click==8.2.1 \\\n    --hash=sha256:bb\n    # via seedcore", False),
        ("click==8.2.2 \\\n    --hash=sha256:bb", True),
        ("colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:cc", False),
        ("colorama==0.4.6 \\\n    --hash=sha256:cc", True),
        ("ray[default]==2.60.0", False),
        ("fastapi==1.0 \\\n    --hash=sha256:dd", True),
    ],
)
def test_only_what_is_not_installed_below_is_installed_on_top(entry: str, is_beyond: object) -> None:
    assert beyond(f"# a comment\n{entry}\n", BELOW) == (f"{entry}\n" if is_beyond else "")


def test_the_locked_library_needs_little_beyond_ray_and_each_with_its_hashes() -> None:
    locked = (ROOT / "roles/seedcore/files/requirements.txt").read_text()
    ray = (ROOT / "roles/ray/files/requirements.txt").read_text()

    found = beyond(locked, ray)

    names = re.findall(r"(?m)^([a-z0-9-]+)==", found)
    assert "fastapi" in names
    assert {"ray", "click", "pydantic"} & set(names) == set()
    assert len(names) < 15
    assert all("--hash=sha256:" in block for block in re.split(r"(?m)^(?=[a-z])", found) if block)
    assert beyond(locked, locked) == ""
