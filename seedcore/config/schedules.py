"""Check the schedules of organism.yaml."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from seedcore.config.yaml_source import BROKEN, Located, Place, Source
from seedcore.core.schedule import problems
from seedcore.core.task import BUILTIN_TASK_TYPES, normalise


def check_schedules(
    source: Source,
    located: Located | None,
    accepted: Collection[tuple[str, str | None]] | None,
    *,
    has_inbox: bool | None,
) -> None:
    """Add every error in the schedules to those of the file.

    Args:
        source: The file.
        located: The list of schedules, if there is one.
        accepted: The task types that organs accept, each with its domain; None if that is not clear.
        has_inbox: Whether the deployment has an inbox; None if that cannot be known.
    """
    if located is None or not isinstance(located.value, list):
        return
    if located.value and has_inbox is False:
        text = "schedules need an inbox for durable tasks, and this deployment has none: set seedcore_inbox to sqlite"
        source.fault(located.key or located.place, text)
    first: dict[str, Place] = {}
    for entry in located.children.values():
        if _is_broken(entry):
            continue
        for problem in problems(entry.value):
            found = entry.find(problem.path) or entry.find(problem.path[:1]) or entry
            source.fault(
                found.key if problem.text.startswith("unknown key") and found.key else found.place, problem.text
            )
        _check_type(source, entry, accepted)
        name = entry.find(("id",))
        if name is not None and isinstance(name.value, str):
            if name.value in first:
                text = f"the schedule in line {first[name.value].line} already has the id {name.value!r}"
                source.fault(name.used, f"{text}, expected a unique id")
            first.setdefault(name.value, name.used)


def _check_type(source: Source, entry: Located, accepted: Collection[tuple[str, str | None]] | None) -> None:
    located = entry.find(("task", "type"))
    if located is None or not isinstance(located.value, str) or not located.value.strip():
        return
    kind, place = normalise(located.value), located.place
    domain = located.value if (located := entry.find(("task", "domain"))) is not None else None
    if accepted is None or kind in BUILTIN_TASK_TYPES or (domain is not None and not isinstance(domain, str)):
        return
    where = normalise(domain or "") or None
    if not {(kind, None), (kind, where)} & set(accepted):
        known = ", ".join(sorted({known for known, there in accepted if there in {None, where}})) or "none"
        suffix = f" in the domain {where!r}" if where is not None else ""
        source.fault(place, f"no organ accepts the task type {kind!r}{suffix}, expected one of: {known}")


def _is_broken(located: Located) -> bool:
    """Return whether a value, or one inside it, already has an error."""
    value: Any = located.value
    return value is BROKEN or any(_is_broken(child) for child in located.children.values())
