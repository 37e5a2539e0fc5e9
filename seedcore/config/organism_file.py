"""Read organism.yaml into an :class:`~seedcore.core.spec.OrganismSpec`, or report every error in it.

:class:`~seedcore.core.spec.OrganSpec` declares the keys, their defaults, their meaning and their allowed values. One
pass finds every error and its place.

The file must define one organ for each task, so a task type may have at most one organ without a domain, and at most
one in each domain. The same type with and without a domain is no conflict: the domain is preferred.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from seedcore.config.agent_check import CheckError, check, check_in
from seedcore.config.agent_import import ALLOWED_PATH, is_agent_path
from seedcore.config.schedules import check_schedules
from seedcore.config.yaml_source import BROKEN, Located, Place, Source, parse_source, read_source, show
from seedcore.core.errors import ConfigError
from seedcore.core.schedule import MAX_SCHEDULES
from seedcore.core.schedule import read as read_schedule
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import BUILTIN_TASK_TYPES, MAX_NAME_CHARS, normalise

PACKAGED_CONFIG = Path(__file__).parents[1] / "default_organism.yaml"

MAX_ID_CHARS = 100
MAX_DESCRIPTION_CHARS = 10_000
MAX_RESOURCE = 1_000_000
# Ray counts resources in ten-thousandths.
MIN_RESOURCE = 0.0001
RAY_OWN_RESOURCES = frozenset({"CPU", "GPU", "memory", "object_store_memory"})

_ORGANS = ("seedcore", "organism", "organ_types")
_SCHEDULES = ("seedcore", "organism", "schedules")
_Location = tuple[str | int, ...]
_WORD = re.compile(r"[\w.-]+")
# Ray's own rules; Ray checks them only when it creates the organ, and cannot name a line.
_LABEL_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?/)?{_LABEL_WORD}")
_LABEL_SELECTOR = re.compile(rf"!?(?:{_LABEL_WORD}|in\({_LABEL_WORD}(?:, ?{_LABEL_WORD})*\))")


def load_config(
    path: Path | None,
    *,
    check_imports: bool = True,
    has_inbox: bool | None = None,
    environments: Mapping[str, str] | None = None,
) -> OrganismSpec:
    """Read organism.yaml.

    Args:
        path: The file; None means the packaged one.
        check_imports: Also import the agents, in this process or in that of their environment, and check that they
            fit their options. Their prints go to stderr.
        has_inbox: Whether the deployment has an inbox, which schedules need; None if that cannot be known.
        environments: The deployment's environments, name to interpreter; None outside of a deployment.

    Returns:
        The organism; its ``source`` is the absolute path of the file.

    Raises:
        ConfigError: With every error in the file, in order of place.
    """
    path = PACKAGED_CONFIG if path is None else path
    source = read_source(path)
    spec = _organism(source, check_imports=check_imports, has_inbox=has_inbox, environments=environments)
    return replace(spec, source=str(path.absolute()))


def parse_config(data: bytes, *, name: str = "organism.yaml", check_imports: bool = True) -> OrganismSpec:
    """Do the same as :func:`load_config` for the content of a file.

    Raises:
        ConfigError: With every error in the content, in order of place.
    """
    return replace(_organism(parse_source(data, name=name), check_imports=check_imports), source=name)


def _checked(kind: Any, valid: Callable[[Any], object], **schema: Any) -> Any:
    """Return a type with a check that the JSON schema cannot use, so that ``schema`` repeats its rule."""

    def check(value: Any) -> Any:
        if not valid(value):
            raise ValueError
        return value

    return Annotated[kind, AfterValidator(check), WithJsonSchema(schema)]


def _is_name(value: str) -> bool:
    return bool(value.strip()) and len(value) <= MAX_NAME_CHARS and value.isprintable()


_NAME_SCHEMA = {
    "type": "string",
    "maxLength": MAX_NAME_CHARS,
    "pattern": r"\A(?=.*\S)[^\x00-\x1f\x7f-\xa0\u2028\u2029]+\z",
}
_NUMBER = Annotated[float, Field(ge=0, le=MAX_RESOURCE)]
_Name: Any = _checked(str, _is_name, **_NAME_SCHEMA)
_Resource: Any = _checked(
    str,
    lambda value: value not in RAY_OWN_RESOURCES and _is_name(value),
    **_NAME_SCHEMA,
    **{"not": {"enum": sorted(RAY_OWN_RESOURCES)}},
)
_AgentPath: Any = _checked(
    str, is_agent_path, type="string", pattern=r"\A[^\s:.]+(\.[^\s:.]+)*:[^\s:.]+(\.[^\s:.]+)*\z"
)
_Quantity: Any = _checked(
    _NUMBER,
    lambda value: not value or value >= MIN_RESOURCE,
    type="number",
    anyOf=[{"const": 0}, {"minimum": MIN_RESOURCE, "maximum": MAX_RESOURCE}],
)
_Gpus: Any = _checked(
    _NUMBER,
    lambda value: not value or (value >= MIN_RESOURCE and (value <= 1 or value == int(value))),
    type="number",
    anyOf=[
        {"const": 0},
        {"minimum": MIN_RESOURCE, "maximum": 1},
        {"type": "integer", "minimum": 1, "maximum": MAX_RESOURCE},
    ],
)
_Label: Any = _checked(str, _LABEL_KEY.fullmatch, type="string", pattern=rf"\A{_LABEL_KEY.pattern}\z")
_LabelSelector: Any = _checked(str, _LABEL_SELECTOR.fullmatch, type="string", pattern=rf"\A{_LABEL_SELECTOR.pattern}\z")
_NAMED = f"a string of 1 to {MAX_NAME_CHARS} characters"
_MEASURE = f"a number from {MIN_RESOURCE} to"
KINDS: dict[str, tuple[Any, str]] = {
    "agent": (_AgentPath, ALLOWED_PATH),
    "count": (int, "an integer from {ge} to {le}"),
    "domains": (
        dict[_Name, Annotated[list[_Name], Field(min_length=1)]],
        "a mapping of domains, each to a list of one or more task types",
    ),
    "environment": (
        Annotated[str, Field(pattern=r"\A(?:[a-z][a-z0-9_-]{0,30})?\z")],
        "the name of an environment: up to 31 of a-z 0-9 _ -, a letter first",
    ),
    "flag": (bool, "true or false"),
    "gpus": (_Gpus, f"0, {_MEASURE} 1, or an integer up to {MAX_RESOURCE}"),
    "id": (
        Annotated[str, Field(pattern=rf"\A[A-Za-z0-9_.-]{{1,{MAX_ID_CHARS}}}\z")],
        f"1 to {MAX_ID_CHARS} of the characters A-Z a-z 0-9 _ . -",
    ),
    "labels": (
        dict[_Label, _LabelSelector],
        (
            "a mapping of Ray's node labels (letters, digits and . _ - inside, up to 63), each to a string: "
            "'value', '!value', 'in(a,b)' or '!in(a,b)'"
        ),
    ),
    "mapping": (dict[str, Any], "a mapping"),
    "name": (_Name, _NAMED),
    "names": (list[_Name], f"a list of task types, each {_NAMED}"),
    "quantity": (_Quantity, f"0 or {_MEASURE} {MAX_RESOURCE}"),
    "ready": (int, "an integer from 1 to agent_count ('required: false' is for an organ that may be down)"),
    "resources": (
        dict[_Resource, _Quantity],
        (
            f"a mapping of custom resources, each to 0 or {_MEASURE} {MAX_RESOURCE} "
            f"(not {', '.join(sorted(RAY_OWN_RESOURCES))}, which are Ray's own)"
        ),
    ),
    "seconds": (float, "a number of seconds above {gt} and up to {le}"),
    "seconds_or_none": (float, "a number of seconds up to {le}"),
    "text": (
        Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)],
        f"a string of up to {MAX_DESCRIPTION_CHARS} characters",
    ),
}
"""Kinds of options: how a value is checked, and the end of the sentence "... is X, expected"."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _organ_model() -> type[BaseModel]:
    defaults = OrganSpec.defaults()
    keys: dict[str, Any] = {}
    for name, option in OrganSpec.described().items():
        kind, allowed = KINDS[option.kind]
        # The default of the model is never used: OrganSpec has the defaults.
        default = None if name in defaults else ...
        bounds: Any = option.bounds
        text = allowed.format(**bounds) if bounds else allowed
        keys[name] = (kind, Field(default, description=text, **bounds))
    return create_model("_Organ", __base__=_Strict, **keys)


_Organ = _organ_model()


class _Organism(_Strict):
    organ_types: list[_Organ] = Field(  # type: ignore[valid-type]  # mypy reads no model that is made at run time
        min_length=1, description="a list of one or more organs"
    )
    # ``_check_schedules`` checks what is inside.
    schedules: list[Any] = Field(default_factory=list, description="a list of schedules", max_length=MAX_SCHEDULES)


class _Seedcore(_Strict):
    organism: _Organism = Field(description="a mapping with the key 'organ_types'")


class OrganismFile(_Strict):
    """A whole file."""

    seedcore: _Seedcore = Field(description="a mapping with the key 'organism'")


def _organism(
    source: Source,
    *,
    check_imports: bool,
    has_inbox: bool | None = None,
    environments: Mapping[str, str] | None = None,
) -> OrganismSpec:
    if source.root is None:
        raise _error(source)
    model, bad = _validate(source, source.root)
    entries = list(_entries(source.root, bad))
    _check_ids(source, entries)
    for entry in entries:
        _check_counts(source, entry)
    _check_routes(source, entries)
    check_schedules(source, source.root.find(_SCHEDULES), _accepted(entries), has_inbox=has_inbox)
    if check_imports:
        _check_agents(source, entries, environments)
    if source.faults or model is None:
        raise _error(source)
    organism = model.seedcore.organism
    schedules = tuple(read_schedule(one) for one in organism.schedules)
    return OrganismSpec(organs=tuple(_spec(organ) for organ in organism.organ_types), schedules=schedules)


def _error(source: Source) -> ConfigError:
    # Several aliases of one wrong value are one error.
    unique = set(source.faults)
    return ConfigError(tuple(sorted(unique, key=lambda fault: (fault.line, fault.column, fault.message))))


def _spec(organ: BaseModel) -> OrganSpec:
    values = organ.model_dump(exclude_unset=True)
    values["task_types"] = tuple(normalise(kind) for kind in values.get("task_types", ()))
    values["domains"] = {
        normalise(domain): tuple(normalise(kind) for kind in kinds)
        for domain, kinds in values.get("domains", {}).items()
    }
    return OrganSpec(**values)


def _validate(source: Source, root: Located) -> tuple[OrganismFile | None, set[_Location]]:
    """Check each value by itself; return the model if all are valid, and the locations of the wrong ones."""
    bad: set[_Location] = set()
    try:
        return OrganismFile.model_validate(root.value), bad
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    for problem in problems:
        # pydantic says "[key]" after the location of a key that is wrong.
        is_key = problem["loc"][-1:] == ("[key]",) and root.find(problem["loc"]) is None
        location = problem["loc"][:-1] if is_key else problem["loc"]
        bad.add(location)
        found = root.find(location)
        if found is not None and found.value is BROKEN:
            continue
        if problem["type"] == "missing":
            parent = root.find(location[:-1]) or root
            text = f"{_title(location[:-1])} lacks the key {location[-1]!r}, expected {_allowed(location)}"
            source.fault(parent.place, text)
        elif found is None:
            source.fault(root.place, f"{_title(location)} is not allowed")
        elif problem["type"] == "extra_forbidden":
            source.fault(found.key or found.place, _unknown_key(location))
        elif is_key:
            text = f"{_title(location[:-1])} has the key {show(location[-1])}, expected {_allowed(location)}"
            source.fault(found.key or found.place, text)
        else:
            source.fault(found.place, f"{_title(location)} is {show(found.value)}, expected {_allowed(location)}")
    return None, bad


def _model_at(location: _Location) -> tuple[type[BaseModel], _Location]:
    """Return the model that contains a location, and the rest of the location inside that model."""
    if len(location) > len(_ORGANS) and location[: len(_ORGANS)] == _ORGANS:
        return _Organ, location[len(_ORGANS) + 1 :]
    models: tuple[type[BaseModel], ...] = (OrganismFile, _Seedcore, _Organism)
    depth = max(0, min(len(location), len(models)) - 1)
    return models[depth], location[depth:]


def _allowed(location: _Location) -> str:
    model, inside = _model_at(location)
    if not inside:
        return _keys(model)
    return str(model.model_fields[str(inside[0])].description)


def _keys(model: type[BaseModel]) -> str:
    names = list(model.model_fields)
    return f"a mapping with the key {names[0]!r}" if len(names) == 1 else f"a mapping with the keys {', '.join(names)}"


def _title(location: _Location) -> str:
    inside_an_organ = location[len(_ORGANS) + 1 :]
    text = ""
    for step in inside_an_organ or location[-2:]:
        if isinstance(step, str) and _WORD.fullmatch(step):
            text += f".{step}" if text else step
        else:
            # A key may contain any character, even a newline.
            text += f"[{step}]" if isinstance(step, int) else f"[{show(step)}]"
    return text or "the file"


def _unknown_key(location: _Location) -> str:
    model, _ = _model_at(location)
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ","
    return f"unknown key {show(location[-1])}{hint} expected one of: {', '.join(known)}"


class _Entry:
    """One organ of the file, with only those values that are valid by themselves."""

    def __init__(self, located: Located, location: _Location, bad: set[_Location]) -> None:
        self._located = located
        depth = len(location)
        self._bad = {place[depth:] for place in bad if place[:depth] == location}

    def get(self, key: str) -> Any:
        """Return the value of a key, OrganSpec's default if it is missing, None if it is wrong or required."""
        located = self._located.children.get(key)
        if located is None:
            return DEFAULTS.get(key)
        return None if located.value is BROKEN or (key,) in self._bad else located.value

    def is_valid(self, *keys: str) -> bool:
        """Return whether nothing in the values of these keys is wrong."""
        broken = any(location[:1] == (key,) for location in self._bad for key in keys)
        return not broken and all(self.get(key) is not None for key in keys)

    def inside(self, *keys: str | int) -> dict[str | int, Located]:
        """Return the valid values inside a value."""
        located = self._located.find(keys)
        if located is None or keys in self._bad:
            return {}
        return {
            step: child
            for step, child in located.children.items()
            if child.value is not BROKEN and (*keys, step) not in self._bad
        }

    def at(self, key: str) -> Located:
        """Return the place of a key's value, or of the organ if the key is missing."""
        return self._located.children.get(key, self._located)


def _entries(root: Located, bad: set[_Location]) -> Iterator[_Entry]:
    organs = root.find(_ORGANS)
    if organs is None or not isinstance(organs.value, list):
        return
    for index, located in organs.children.items():
        if isinstance(located.value, dict):
            yield _Entry(located, (*_ORGANS, index), bad)


def _check_ids(source: Source, entries: list[_Entry]) -> None:
    first: dict[str, Place] = {}
    for entry in entries:
        organ_id = entry.get("id")
        if organ_id is None:
            continue
        place = entry.at("id").used
        if organ_id in first:
            text = f"the organ in line {first[organ_id].line} already has the id {organ_id!r}"
            source.fault(place, f"{text}, expected a unique id")
        first.setdefault(organ_id, place)


def _check_counts(source: Source, entry: _Entry) -> None:
    agents = entry.get("agent_count")
    for key in ("replicas", "min_ready_agents"):
        value = entry.get(key)
        if agents is not None and value is not None and value > agents:
            source.fault(entry.at(key).used, f"{key} is {value}, expected at most agent_count, which is {agents}")


def _check_routes(source: Source, entries: list[_Entry]) -> None:
    taken: dict[tuple[str, str | None], tuple[_Entry, Place]] = {}
    for entry in entries:
        domains: dict[str, Place] = {}
        for (kind, domain), located in _routes(source, entry, domains):
            place = located.used
            where = f" in the domain {domain!r}" if domain is not None else ""
            if kind in BUILTIN_TASK_TYPES:
                source.fault(located.place, f"the task type {kind!r} is built in, expected another one")
            elif (kind, domain) in taken:
                other, first = taken[kind, domain]
                name = other.get("id")
                who = "this organ" if other is entry else f"the organ {name!r}" if name else "another organ"
                text = f"{who} already accepts the task type {kind!r}{where}, in line {first.line}"
                source.fault(place, f"{text}, expected one organ for each task type and domain")
            else:
                taken[kind, domain] = (entry, place)


def _accepted(entries: list[_Entry]) -> set[tuple[str, str | None]] | None:
    """Return the task types that some organ accepts, each with its domain; None if some of them are wrong."""
    if not all(entry.is_valid("task_types", "domains") for entry in entries):
        return None
    pairs: set[tuple[str, str | None]] = set()
    for entry in entries:
        pairs |= {(normalise(kind), None) for kind in entry.get("task_types")}
        pairs |= {(normalise(kind), normalise(key)) for key, kinds in entry.get("domains").items() for kind in kinds}
    return pairs


def _routes(
    source: Source, entry: _Entry, domains: dict[str, Place]
) -> Iterator[tuple[tuple[str, str | None], Located]]:
    for located in entry.inside("task_types").values():
        yield (normalise(located.value), None), located
    for key, kinds in entry.inside("domains").items():
        domain, place = normalise(str(key)), kinds.key or kinds.used
        if domain in domains:
            text = f"the domain {domain!r} appears twice (case and outer blanks are ignored)"
            source.fault(place, f"{text}, first in line {domains[domain].line}")
        domains.setdefault(domain, place)
        for located in entry.inside("domains", key).values():
            yield (normalise(located.value), domain), located


def _check_agents(source: Source, entries: list[_Entry], environments: Mapping[str, str] | None) -> None:
    by_environment: dict[str, list[_Entry]] = {}
    for entry in entries:
        # Outside of a deployment there are no environments, and all organs run in this Python.
        name = entry.get("environment") if environments is not None else ""
        if name and name not in (environments or {}):
            source.fault(entry.at("environment").used, _unknown_environment(name, environments or {}))
        elif name is not None and entry.get("agent") is not None:
            by_environment.setdefault(name, []).append(entry)
    for name, members in by_environment.items():
        asked = [(entry.get("agent"), entry.get("options")) for entry in members]
        try:
            found = check_in(environments[name], asked) if name and environments else check(asked)
        except CheckError as error:
            source.fault(members[0].at("environment").place, f"environment {name!r} cannot be checked: {error}")
            continue
        where = f"in the environment {name!r}, " if name else ""
        for entry, problems in zip(members, found, strict=True):
            for problem in problems:
                option = entry.at("options").children.get(problem.option) if problem.option is not None else None
                place = (option.key or option.place) if option is not None else entry.at("agent").place
                source.fault(place, f"{where}{problem.text}")


def _unknown_environment(name: str, known: Mapping[str, str]) -> str:
    if not known:
        return f"environment is {name!r}, but the deployment has none: seedcore_environments makes them"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ","
    return f"environment is {name!r}{hint} expected one of: {', '.join(sorted(known))} (seedcore_environments)"


DEFAULTS = OrganSpec.defaults()
