"""Simulate a power cut in a recorded run: rebuild the disk as it may be at any moment.

Writes that were not synced are lost, or a random part of them survives, in sectors of 512 bytes. Synced data is
assumed to survive.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_RECORDER = Path(__file__).with_name("disk_recorder.c")
_HEADER = struct.Struct("<qqqq")
_SECTOR = 512


@dataclass(frozen=True)
class Event:
    """One event: W write, T truncate, S sync, U unlink, or A acknowledgement to others."""

    kind: str
    name: str
    offset: int
    data: bytes


def record(command: Sequence[str], directory: Path, scratch: Path) -> list[Event]:
    """Run a command; return its changes of the files in a directory and its writes to the file ``told`` there."""
    library, log = scratch / "disk_recorder.so", scratch / "records"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, _RECORDER, "-ldl", "-lpthread"], check=True)
    told = {"LD_PRELOAD": str(library), "DISK_RECORD": str(log), "DISK_DIRECTORY": str(directory)}
    subprocess.run(command, check=True, env={**os.environ, **told})
    raw, place, events = log.read_bytes(), 0, []
    while place < len(raw):
        kind, offset, name_length, data_length = _HEADER.unpack_from(raw, place)
        place += _HEADER.size
        name = raw[place : place + name_length].decode()
        place += name_length
        events.append(Event(chr(kind), name, offset, raw[place : place + data_length]))
        place += data_length
    return events


@dataclass
class Disk:
    """The durable content of a disk, and the writes since the last sync."""

    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[Event]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def happen(self, event: Event) -> None:
        """Apply an event."""
        if event.kind == "A":
            self.told += event.data.decode().split()
        elif event.kind == "U":
            self.synced.pop(event.name, None)
            self.pending.pop(event.name, None)
        elif event.kind == "S":
            content = self.synced.setdefault(event.name, bytearray())
            for write in self.pending.pop(event.name, ()):
                _apply(content, write.kind, write.offset, write.data)
        else:
            self.pending.setdefault(event.name, []).append(event)

    def image(self, chance: random.Random | None) -> dict[str, bytes]:
        """Return the files after a power cut; with ``chance``, including random parts of unsynced writes."""
        files = {}
        for name in {*self.synced, *self.pending}:
            content = bytearray(self.synced.get(name, b""))
            for write in self.pending.get(name, ()) if chance else ():
                assert chance is not None
                if write.kind == "T":
                    if chance.random() < 0.5:
                        del content[write.offset :]
                    continue
                for start in range(0, len(write.data), _SECTOR):
                    if chance.random() < 0.5:
                        _apply(content, "W", write.offset + start, write.data[start : start + _SECTOR])
            files[name] = bytes(content)
        return files


def cuts(events: Sequence[Event], number: int, seed: int) -> Iterator[tuple[list[str], dict[str, bytes]]]:
    """Cut the power at random moments; yield the acknowledgements until then and the files (worst and random case)."""
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(len(events)), number))
    disk = Disk()
    for moment, event in enumerate(events):
        if moments and moments[0] == moment:
            moments.pop(0)
            yield list(disk.told), disk.image(None)
            yield list(disk.told), disk.image(chance)
        disk.happen(event)


def _apply(content: bytearray, kind: str, offset: int, data: bytes) -> None:
    if kind == "T":
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
