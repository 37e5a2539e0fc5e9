"""What a Coordinator leaves to the next one: its organism, and how to talk to the organs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedcore.core.spec import OrganismSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a Coordinator has left in its record: its organism, and how to talk to the organs."""

    spec: OrganismSpec
    release: str
    protocol: int
    generations: Mapping[str, int]
    identities: Mapping[str, str]
    stopped: bool

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Inheritance | None:
        """Read a record; None if there is none, or an earlier release or a later one has written it differently."""
        if kept is None:
            return None
        try:
            return cls(
                spec=OrganismSpec.from_dict(kept["spec"]),
                release=str(kept["release"]),
                protocol=int(kept["protocol"]),
                generations=dict(kept["generations"]),
                identities=dict(kept["identities"]),
                stopped=bool(kept["stopped"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
