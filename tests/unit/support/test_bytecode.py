from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_what_tests_start_writes_bytecode_also_where_a_shell_says_no(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text("")
    start = "subprocess.run([sys.executable, '-c', 'import imported'], check=True)"
    code = f"import subprocess, sys, tests.conftest; {start}"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT}:{tmp_path}"}

    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)

    assert list((tmp_path / "__pycache__").glob("imported.*.pyc"))
