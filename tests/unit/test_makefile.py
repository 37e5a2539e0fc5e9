from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_a_target_needs_has_a_rule(target: str, tmp_path: Path) -> None:
    # As on a machine where nothing has been installed; nothing is run.
    done = subprocess.run(
        ["make", "--dry-run", f"VENV={tmp_path}/venv", target], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout
