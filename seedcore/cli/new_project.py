"""Write the files of a new project: one agent, its test, its packaging, and an organism that uses it."""

from __future__ import annotations

import keyword
from pathlib import Path

import click

_AGENT = '''"""Agents of this project: functions, or classes with a method ``execute``."""

from pathlib import Path


def count_lines(task):
    """Return ``{"lines": n}`` of the file ``params["path"]``."""
    return {"lines": len(Path(task.params["path"]).read_text().splitlines())}
'''
_TEST = """from {name} import count_lines
from seedcore import Task


def test_every_line_counts(tmp_path):
    path = tmp_path / "text"
    path.write_text("one\\ntwo\\n")

    assert count_lines(Task(type="count_lines", params={{"path": str(path)}})) == {{"lines": 2}}
"""
_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "1.0"
dependencies = []  # the packages that the agents import, except SeedCore and Ray

[tool.hatch.build.targets.wheel]
only-include = ["{name}.py"]
"""
_ORGANISM = """seedcore:
  organism:
    organ_types:
      - id: files
        type: Files
        agent: {name}:count_lines
        agent_count: 2
        task_types: [count_lines]
"""


def write(directory: Path, name: str) -> list[Path]:
    """Write the files and return their paths.

    Raises:
        click.UsageError: ``name`` is not a valid module name, or one of the files exists; nothing is written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise click.UsageError(f"NAME is {name!r}, expected a Python identifier such as my_agents")
    contents = {
        directory / name / f"{name}.py": _AGENT,
        directory / name / f"test_{name}.py": _TEST.format(name=name),
        directory / name / "pyproject.toml": _PROJECT.format(name=name, distribution=name.replace("_", "-")),
        directory / "organism.yaml": _ORGANISM.format(name=name),
    }
    taken = [str(path) for path in contents if path.exists() or path.is_symlink()]
    if taken:
        raise click.UsageError(f"{' and '.join(taken)} {'exist' if taken[1:] else 'exists'} already")
    for path, content in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(contents)
