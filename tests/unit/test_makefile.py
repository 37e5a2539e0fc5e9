from __future__ import annotations

import os
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


def test_a_shell_has_the_environment_of_the_deployment(tmp_path: Path) -> None:
    def shell() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", "shell", f"ray_prefix={tmp_path}"],
            cwd=ROOT, env={**os.environ, "SHELL": "/bin/sh"}, input='echo "$RAY_ADDRESS"\n',
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert f"there is no deployment at {tmp_path}: make deploy makes one" in shell().stderr
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text("RAY_ADDRESS=127.0.0.2:26379\nexport RAY_ADDRESS\n")

    assert (done := shell()).returncode == 0, done.stderr
    assert done.stdout == "127.0.0.2:26379\n"


@pytest.mark.parametrize(("subject", "code"), [("Close the file", 0), ("x" * 72, 0), ("x" * 73, 1)])
def test_a_subject_has_at_most_72_characters(subject: str, code: int, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\n{'why ' * 50}\n# a comment\n")

    assert subprocess.run([ROOT / ".ci" / "subject", message], capture_output=True, check=False).returncode == code
