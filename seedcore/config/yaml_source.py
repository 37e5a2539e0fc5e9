"""Read a YAML file as plain data in which every value has its place.

PyYAML composes the nodes. This module makes the values, because PyYAML's constructors drop the places, silently let a
second equal key win, and raise at the first error. JSON text has the same meaning as in JSON.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seedcore.core.errors import ConfigError, Fault
from seedcore.core.task import describe

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_INTEGER = 2**63 - 1
_SHOWN_CHARS = 80
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"

BROKEN: Any = object()
"""Replaces a value that already has an error, so that it is not reported twice."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column, both counted from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, mark: yaml.Mark) -> Place:
        """Convert PyYAML's mark, which counts from 0."""
        return cls(mark.line + 1, mark.column + 1)


@dataclass(slots=True)
class Located:
    """A value and its place in the file.

    Attributes:
        value: Plain data: None, bool, int, float, str, list, dict with string keys, or :data:`BROKEN`.
        place: Where it is written.
        used: Where it is used: ``place``, or the place of the alias.
        key: Place of its key, for a value of a mapping.
        children: The values inside, by key or index.
    """

    value: Any
    place: Place
    used: Place
    key: Place | None = None
    children: dict[str | int, Located] = field(default_factory=dict)

    def find(self, location: Sequence[str | int]) -> Located | None:
        """Return the value at a path of keys and indexes, None if there is none."""
        found: Located | None = self
        for step in location:
            found = found.children.get(step) if found is not None else None
        return found


@dataclass(slots=True)
class Source:
    """A file that was read: its values (None if there are none) and every YAML error in it."""

    name: str
    root: Located | None = None
    faults: list[Fault] = field(default_factory=list)

    def fault(self, place: Place, message: str) -> None:
        """Add an error."""
        self.faults.append(Fault(self.name, place.line, place.column, message))


def read_source(path: Path) -> Source:
    """Read as much of a YAML file as can be read.

    Raises:
        ConfigError: The file cannot be read at all.
    """
    return parse_source(_read(path), name=str(path))


def parse_source(data: bytes, *, name: str) -> Source:
    """Parse the bytes of a YAML file; put errors into ``faults`` and raise nothing."""
    source = Source(name)
    if len(data) > MAX_FILE_BYTES:
        source.fault(Place(1, 1), f"the file is larger than {MAX_FILE_BYTES} bytes")
        return source
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8, expected UTF-8 text"
        source.fault(_place_in(data[: error.start].decode("utf-8")), message)
        return source
    node = _compose(text, source)
    if node is not None:
        source.root = _Values(source).read(node)
    return source


def show(value: Any) -> str:
    """Format a value for a message, in YAML's terms and in one short line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            problem = "is a directory, expected a YAML file"
        elif not stat.S_ISREG(mode):
            # Reading a pipe may block for ever, and the supervisor could not read it again.
            problem = "is not a regular file, expected a YAML file"
        else:
            with path.open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        problem = "there is no such file"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "cannot be read: the path contains a character that is not allowed in paths"
    raise ConfigError((Fault(str(path), 0, 0, problem),))


class _Alias:
    """Represents ``*name``; PyYAML alone would lose its place."""

    __slots__ = ("node", "start_mark")

    def __init__(self, node: Any, start_mark: Any) -> None:
        self.node = node
        self.start_mark = start_mark


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with a limit on the depth, instead of Python's recursion limit."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> Any:
        events: Any = self  # some of its methods have no types
        event = events.peek_event()
        if isinstance(event, yaml.AliasEvent):
            return _Alias(super().compose_node(parent, index), event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _compose(text: str, source: Source) -> Any:
    node = None
    try:
        loader: Any = _Composer(text)
    except yaml.reader.ReaderError as error:
        message = f"the character U+{int(error.character):04X} is not allowed in YAML"
        source.fault(_place_in(text[: error.position]), message)
        return None
    try:
        if loader.check_node():
            node = loader.get_node()
        else:
            source.fault(Place(1, 1), "the file is empty, expected a mapping with the key 'seedcore'")
        if node is not None and loader.check_node():
            place = Place.of(loader.peek_event().start_mark)
            source.fault(place, "a second document begins here, expected one document per file")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = [word for word in (error.problem, error.context) if word]
        source.fault(Place.of(mark) if mark else Place(1, 1), f"bad YAML: {', '.join(words)}")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets some Python errors through, for example for an escape like "\U00110000".
        source.fault(Place.of(loader.get_mark()), f"bad YAML: {describe(error).splitlines()[0]}")
    finally:
        loader.dispose()
    return node


class _Values:
    """Turn nodes into values, within a limit: a few aliases of aliases can stand for billions of values."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._scalars: Any = yaml.constructor.SafeConstructor()
        self._left = MAX_VALUES
        self._open: set[int] = set()

    def read(self, node: Any, *, used: Place | None = None, depth: int = 0) -> Located:
        """Return the value of a node; ``used`` is the place of the outermost alias around it."""
        if isinstance(node, _Alias):
            return self.read(node.node, used=used or Place.of(node.start_mark), depth=depth)
        place = Place.of(node.start_mark)
        here = Located(BROKEN, place, used or place)
        self._left -= 1
        if self._left < 0:
            if self._left == -1:
                self._source.fault(here.used, f"the file has more than {MAX_VALUES} values")
        elif id(node) in self._open:
            self._source.fault(here.used, "the anchor contains itself")
        elif depth > MAX_DEPTH:
            self._source.fault(here.used, f"nested deeper than {MAX_DEPTH} levels")
        else:
            self._open.add(id(node))
            try:
                self._fill(here, node, used=used, depth=depth)
            except _BadValueError as error:
                self._source.fault(place, str(error))
            finally:
                self._open.discard(id(node))
        return here

    def _fill(self, here: Located, node: Any, *, used: Place | None, depth: int) -> None:
        if isinstance(node, yaml.ScalarNode):
            here.value = self._scalar(node)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                here.children[index] = self.read(item, used=used, depth=depth + 1)
            here.value = [child.value for child in here.children.values()]
        elif isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            self._mapping(node, here, used=used, depth=depth)
            here.value = {key: child.value for key, child in here.children.items()}
        else:
            raise _bad_tag(node)

    def _mapping(self, node: yaml.MappingNode, here: Located, *, used: Place | None, depth: int) -> None:
        merged: dict[str | int, Located] = {}
        seen: dict[str, Place] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            key_place = Place.of(key_node.start_mark)
            if key in seen:
                self._source.fault(key_place, f"the key {key!r} appears twice, first in line {seen[key].line}")
                continue
            seen[key] = key_place
            if _is_merge(key_node):
                for part in self._merge_parts(value_node):
                    content = self.read(part, used=used, depth=depth + 1)
                    for name, child in content.children.items():
                        merged.setdefault(name, child)
                continue
            here.children[key] = self.read(value_node, used=used, depth=depth + 1)
            here.children[key].key = key_place
        for name, child in merged.items():
            here.children.setdefault(name, child)

    def _key(self, node: Any) -> str | None:
        key = self.read(node)
        if key.value is BROKEN:
            return None
        if isinstance(key.value, str):
            return key.value
        self._source.fault(key.used, f"a key must be a string, got {show(key.value)}: quote it")
        return None

    def _merge_parts(self, node: Any) -> Iterator[Any]:
        target = node.node if isinstance(node, _Alias) else node
        if isinstance(target, yaml.MappingNode):
            yield node
            return
        parts = target.value if isinstance(target, yaml.SequenceNode) else [node]
        for part in parts:
            if isinstance(part.node if isinstance(part, _Alias) else part, yaml.MappingNode):
                yield part
            else:
                message = "the value of '<<' is not a mapping, expected a mapping or a list of mappings"
                self._source.fault(Place.of(part.start_mark), message)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG)
        shown = show(node.value)
        if kind in {"str", "value", "merge"}:
            return _whole_characters(node.value)
        if kind == "timestamp":
            raise _BadValueError(f"YAML reads {shown} as a date: quote it")
        if kind not in {"int", "float", "bool", "null"}:
            raise _bad_tag(node)
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, OverflowError) as error:
            raise _BadValueError(f"{shown} is not of the type {kind}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _BadValueError(f"{shown} is not allowed, expected finite numbers")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise _BadValueError(f"{shown} is too large, expected 64-bit integers")
        return value


# A JSON number with an exponent and without a point, which YAML 1.1 would read as a string.
_Composer.add_implicit_resolver(_TAG + "float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"), list("-+0123456789"))


class _BadValueError(Exception):
    """A node cannot be turned into a value."""


def _whole_characters(text: str) -> str:
    if text.isascii():
        return text
    try:
        # JSON writes characters above U+FFFF as two escapes, which YAML does not combine.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise _BadValueError("the text contains half of a surrogate pair, expected whole characters") from error


def _bad_tag(node: yaml.Node) -> _BadValueError:
    tag = "!!" + node.tag.removeprefix(_TAG) if node.tag.startswith(_TAG) else node.tag
    return _BadValueError(
        f"the tag {tag[:_SHOWN_CHARS]} is not allowed, expected plain strings, numbers, booleans, lists and mappings"
    )


def _is_merge(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _MERGE


def _place_in(before: str) -> Place:
    """Return the place after a text."""
    return Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
