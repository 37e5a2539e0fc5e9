"""Test that code for hosts runs with Python 3.9, the oldest one that ansible-core allows there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OLDEST = (3, 9)
FILES = [
    *sorted((ROOT / "plugins" / "modules").glob("*.py")),
    *sorted((ROOT / "plugins" / "module_utils").glob("*.py")),
    *sorted(ROOT.glob("roles/*/files/*.py")),
]
# Additions to the standard library and the built-in functions after 3.9 that this code might use.
NEW_MODULES = {"annotationlib", "compression", "tomllib"}
NEW_NAMES = {
    "ExceptionGroup", "StrEnum", "TaskGroup", "UTC", "aclosing", "add_note", "aiter", "anext", "assert_never",
    "batched", "bit_count", "chdir", "file_digest", "hardlink_to", "is_junction", "orig_argv", "override", "pairwise",
    "process_cpu_count", "setns", "stdlib_module_names", "unshare",
}  # fmt: skip
NEW_KEYWORDS = {
    ("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only"), ("dataclass", "weakref_slot"),
    ("glob", "root_dir"), ("iglob", "root_dir"), ("rmtree", "onexc"), ("rmtree", "dir_fd"), ("run", "process_group"),
    ("Popen", "process_group"), ("Popen", "pipesize"), ("exists", "follow_symlinks"), ("write_text", "newline"),
}  # fmt: skip


def too_new(text: str) -> Iterator[str]:
    """Return the features in a file that Python 3.9 lacks."""
    try:
        tree = ast.parse(text, feature_version=OLDEST)
    except SyntaxError as error:
        yield f"{error.lineno}: {error.msg}"
        return
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (f"{line}: {name.name}" for name in node.names if name.name in NEW_MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {name.name for name in node.names} & NEW_NAMES
            yield from (f"{line}: {name}" for name in sorted(names | ({node.module or ""} & NEW_MODULES)))
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in NEW_NAMES:
                yield f"{line}: {name}"
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from (f"{line}: {called}({key.arg}=)" for key in node.keywords if (called, key.arg) in NEW_KEYWORDS)
            if called in ("isinstance", "issubclass") and any(isinstance(part, ast.BinOp) for part in node.args):
                yield f"{line}: {called} with X | Y"
    yield from _evaluated_unions(tree)


def _evaluated_unions(tree: ast.Module) -> Iterator[str]:
    """Find evaluated annotations with X | Y; a file that imports ``annotations`` has none."""
    if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        return
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.AST) and any(isinstance(inner, ast.BinOp) for inner in ast.walk(part)):
                yield f"{part.lineno}: X | Y in an annotation"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_with_the_python_of_a_host_is_understood_by_3_9(path: Path) -> None:
    assert list(too_new(path.read_text())) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("match a:\n  case 1: pass", "1: "),
        ("try:\n  pass\nexcept* OSError:\n  pass", "1: "),
        ("zip(a, b, strict=True)", "1: zip(strict=)"),
        ("import tomllib", "1: tomllib"),
        ("from enum import StrEnum", "1: StrEnum"),
        ("itertools.pairwise(a)", "1: pairwise"),
        ("isinstance(a, int | str)", "1: isinstance with X | Y"),
        ("def f(a: int | None) -> None: pass", "1: X | Y in an annotation"),
        ("def f(a) -> 'int | None': pass", ""),
        ("from __future__ import annotations\ndef f(a: int | None) -> None: pass", ""),
    ],
)
def test_what_is_too_new_is_found(text: str, said: str) -> None:
    found = list(too_new(text))

    assert bool(found) == bool(said)
    assert not found or said in found[0] or found[0].split(":")[0].isdigit()
