"""Draw the import graph of the library's packages, layer by layer, from the code: docs/packages.svg."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "packages.svg"
WIDTH, ROW, BOX, HEIGHT = 900, 110, 150, 44
STYLE = """\
svg{font-family:system-ui,sans-serif;color-scheme:light dark;background:light-dark(#fff,#15181d)}
.b{fill:light-dark(#eef3fb,#1f2937);stroke:light-dark(#3b6fb6,#7aa7e6)}
.a{fill:none;stroke:light-dark(#333,#ccc);stroke-width:1.3;marker-end:url(#m)}
.c{fill:none;stroke:light-dark(#b6bfcc,#4a5361);stroke-width:1.2}
.t{font-size:15px;font-weight:600;text-anchor:middle;fill:light-dark(#111,#eee)}
.l{font-size:12px;fill:light-dark(#333,#ccc)}"""
MARKER = (
    '<marker id="m" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="light-dark(#333,#ccc)"/></marker>'
)


def layers() -> list[list[str]]:
    """Return the packages of each layer, highest first, from the import contract that `make lint` checks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    return [[name.strip() for name in layer.split(":")] for layer in contract["layers"]]


def arrows() -> Counter[tuple[str, str]]:
    """Return the number of import statements for each pair (importing package, imported package)."""
    found: Counter[tuple[str, str]] = Counter()
    home = ROOT / "seedcore"
    for path in sorted(home.rglob("*.py")):
        inside = path.relative_to(home).parts
        source = inside[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seedcore."):
                target = str(node.module).split(".")[1]
                if target != source and not source.startswith("__"):
                    found[source, target] += 1
    return found


def picture() -> str:
    """Return the drawing as SVG."""
    rows = layers()
    places = {
        name: (WIDTH * (column + 1) // (len(row) + 1), 40 + line * ROW)
        for line, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    height = 40 + len(rows) * ROW
    said = "The packages of the library in their layers, and which imports which"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}.">',
        f"<style>\n{STYLE}\n</style>\n<defs>{MARKER}</defs>",
    ]
    # Every package imports core: draw those lines first and pale, so that they do not hide the others.
    for (source, target), _ in sorted(arrows().items(), key=lambda entry: (entry[0][1] != "core", entry[0])):
        (left, top), (right, bottom) = places[source], places[target]
        line = f"M{left} {top + HEIGHT // 2} L{right} {bottom - HEIGHT // 2}"
        parts.append(f'<path class="{"c" if target == "core" else "a"}" d="{line}"/>')
    for name, (x, y) in places.items():
        parts.append(
            f'<rect class="b" x="{x - BOX // 2}" y="{y - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
            f'<text class="t" x="{x}" y="{y + 5}">{name}</text>'
        )
    parts.append(f'<text class="l" x="15" y="{height - 15}">An arrow points to what is imported; pale: core.</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
