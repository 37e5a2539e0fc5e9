"""Write the figures as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.timing import Row

_WORDS = {True: "met", False: "missed", None: ""}


def table(rows: Sequence[Row]) -> str:
    """Return the figures as a Markdown table, readable in a terminal and ready for a page."""
    lines = ["| what | against | ratio | goal | | ours | theirs |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = (f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in (row.ours, row.theirs))  # noqa: PLR2004
        cells = [row.what, row.against, f"{row.ratio:.3g}", row.goal, _WORDS[row.met], f"{ours} {row.unit}", theirs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(rows: Sequence[Row], *, rounds: int, cpus: int) -> dict[str, Any]:
    """Return all figures as plain data."""
    return {
        "ray": metadata.version("ray"),
        "seedcore": metadata.version("seedcore"),
        "python": platform.python_version(),
        "cpus": cpus,
        "rounds": rounds,
        "rows": [
            {
                "what": row.what,
                "against": row.against,
                "ratio": round(row.ratio, 4),
                "ratios": [round(value, 4) for value in row.ratios],
                "goal": row.goal,
                "met": row.met,
                "ours": round(row.ours, 4),
                "theirs": round(row.theirs, 4),
                "unit": row.unit,
                "note": row.note,
            }
            for row in rows
        ],
    }


def write(rows: Sequence[Row], directory: Path, *, rounds: int, cpus: int) -> None:
    """Write ``results.json`` and ``ratios.svg``."""
    text = json.dumps(document(rows, rounds=rounds, cpus=cpus), indent=2)
    (directory / "results.json").write_text(text + "\n")
    plot([row for row in rows if row.goal], directory / "ratios.svg")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw by which factor each figure is better than its goal, with the range of its rounds."""
    import matplotlib as mpl  # noqa: PLC0415 - only here, and it is slow to import

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "seedcore", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the choice of how to draw

    figure, axes = plt.subplots(figsize=(9, 0.5 * len(rows) + 1.2))
    for place, row in enumerate(reversed(rows)):
        values = sorted(_margin(row, ratio) for ratio in row.ratios)
        colour = "tab:green" if row.met else "tab:red"
        axes.plot([values[0], values[-1]], [place, place], color=colour, alpha=0.4, linewidth=5, solid_capstyle="butt")
        axes.plot([_margin(row, row.ratio)], [place], "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    names = [f"{row.what}\nagainst {row.against}: goal {row.goal}" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set_xlabel("times better than the goal: median, and the range of the rounds")
    axes.grid(axis="x", which="both", alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def _margin(row: Row, ratio: float) -> float:
    sign, bound = row.goal.split()[:2]
    # A difference may be zero or negative, which a logarithmic axis cannot show.
    ratio = max(ratio, 0.01)
    return ratio / float(bound) if sign == ">=" else float(bound) / ratio
