"""``seedcore top``: rates, durations, queues and failures, refreshed every two seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from seedcore.cli.output import data
from seedcore.cli.render import ago, duration, plain, status_word, table

if TYPE_CHECKING:
    from seedcore.status.report import Report

_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_PLAIN_BARS = "_.-=+*#@"
_PLOT_COLUMNS = 60
_FAILURES = 8


def frame(report: Report, activity: Mapping[str, Any] | None, *, seen_s: float | None) -> list[str]:
    """Return the lines of one screen.

    Args:
        report: The present status.
        activity: ``GET /coordinator/activity``, None if the request failed.
        seen_s: Age of the organs' data in seconds, None if it is current.
    """
    own = report.coordinator
    lines = [f"{status_word(report.status)}  {report.reason}: {plain(report.message)}"]
    facts = [time.strftime("%H:%M:%S")]
    if own.get("since"):
        facts.append(f"since{ago(own['since'])}".replace("since (", "since ").removesuffix(" ago)"))
    facts += [str(own["release"])] if own.get("release") else []
    facts.append(f"nodes {report.nodes.get('alive', 0)} of {report.nodes.get('expected', 0)}")
    lines.append(", ".join(facts))
    if activity is not None:
        lines += ["", *_rates(activity["samples"])]
    organs = own.get("organs") or []
    if organs:
        if seen_s is not None:
            lines += ["", click.style(f"last known state, {duration(seen_s)} ago:", fg="yellow")]
        lines += ["", *_organs(organs, (activity or {}).get("organs") or [])]
    if activity is not None and activity["failures"]:
        lines += ["", click.style("LAST FAILURES", bold=True), *_failures(activity)]
    return lines


def document(report: Report, activity: Mapping[str, Any] | None) -> str:
    """Return both as one line of JSON."""
    return json.dumps({"status": report.to_dict(), "activity": activity}, default=str)


def _rates(samples: Mapping[str, Sequence[Any]]) -> list[str]:
    if not samples["at"]:
        return ["tasks    none yet"]
    done, failed = samples["done_per_s"][-1], samples["failed_per_s"][-1]
    failing = click.style(f"{failed:.1f} failed", fg="red" if failed else None)
    times = f"median {_seconds(samples['p50_s'][-1])}, 95 % {_seconds(samples['p95_s'][-1])}"
    totals = [sum(pair) for pair in zip(samples["done_per_s"], samples["failed_per_s"], strict=True)]
    load = f"{samples['in_flight'][-1]} in flight, {samples['queued'][-1]} queued"
    return [
        f"tasks    {done:.1f}/s done, {failing}, {times}, {load}",
        f"rate     {_plot(totals)}  up to {max(totals):.1f}/s in {duration(2 * len(totals))}",
    ]


def _plot(values: Sequence[float]) -> str:
    """Draw one line of bars; several values share a bar if there are too many."""
    share = -(-len(values) // _PLOT_COLUMNS)
    columns = [max(values[start : start + share]) for start in range(0, len(values), share)]
    bars, highest = _bars(), max(columns) or 1.0
    return "".join(
        bars[min(len(bars) - 1, int(value / highest * len(bars)))] if value else bars[0] for value in columns
    )


def _bars() -> str:
    try:
        _BARS.encode(data().encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN_BARS
    return _BARS


def _organs(organs: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]) -> list[str]:
    known = {entry["organ_id"]: entry for entry in figures}

    def extra(organ: Mapping[str, Any]) -> tuple[str, ...]:
        mine = known.get(organ.get("organ_id"), {})
        return (
            f"{mine.get('per_s', 0):.1f}",
            f"{mine.get('failed_per_s', 0):.1f}",
            _seconds(mine.get("mean_s")),
            str(mine.get("done", 0)),
            str(mine.get("failed", 0)),
        )

    return table(organs, more=("PER S", "FAILED/S", "MEAN", "DONE", "FAILED"), extra=extra)


def _failures(activity: Mapping[str, Any]) -> list[str]:
    lines = []
    for failure in activity["failures"][:_FAILURES]:
        where = failure.get("agent_id") or failure.get("organ_id") or ""
        if failure.get("replica") is not None:
            where = f"{where}[{failure['replica']}]"
        what = " ".join(plain(word) for word in (failure.get("task_type"), where) if word)
        times = f"{failure['count']} times, last " if failure["count"] > 1 else ""
        kind = f"{plain(failure['error_type'])}: " if failure.get("error_type") else ""
        lines.append(f"{times}{duration(activity['now'] - failure['at'])} ago  {what}  {kind}{plain(failure['error'])}")
    return lines


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.1f} s"
