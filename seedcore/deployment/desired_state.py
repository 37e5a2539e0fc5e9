"""The desired state of this deployment, on disk: the supervisor restarts only what somebody wanted to run.

It is one small file in the state directory, replaced atomically and readable by its owner only. Without a valid file,
the desired state is unknown, and nothing is started.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seedcore.core.release import agents_python, environments
from seedcore.core.spec import OrganismSpec
from seedcore.core.state_file import replace_file

if TYPE_CHECKING:
    from seedcore.core.settings import Settings

FILE_NAME = "desired.json"
# Held while the Coordinator or its desired state is changed.
LOCK_NAME = "bootstrap.lock"
State = Literal["running", "stopped"]
_STATES: dict[Any, State] = {"running": "running", "stopped": "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The desired state.

    Attributes:
        desired: ``running`` or ``stopped``.
        config: Absolute path of the organism.yaml that was started, for people; None for the packaged file.
        fingerprint: Fingerprint of the organism that was started; "" if unknown.
        spec: The organism itself, because ``config`` may have been edited since; None for the packaged file.
        at: Time of the record, ISO 8601 in UTC.
    """

    desired: State
    config: str | None = None
    fingerprint: str = ""
    spec: OrganismSpec | None = None
    at: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "desired": self.desired,
            "config": self.config,
            "fingerprint": self.fingerprint,
            "spec": self.spec.to_dict() if self.spec else None,
            "at": self.at,
        }


def read_desired(settings: Settings) -> Desired | None:
    """Return the desired state, or None if it is unknown."""
    try:
        document = json.loads((settings.state_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict):
        return None
    state, config = _STATES.get(str(document.get("desired"))), document.get("config")
    if state is None or not isinstance(config, str | None):
        return None
    return Desired(
        desired=state,
        config=config,
        fingerprint=str(document.get("fingerprint") or ""),
        spec=_spec(document.get("spec")),
        at=str(document.get("at") or ""),
    )


def write_desired(
    settings: Settings, desired: State, *, spec: OrganismSpec | None = None, config: str | Path | None = None
) -> Desired:
    """Record the desired state atomically.

    Args:
        settings: ``state_dir`` is the directory.
        desired: ``running`` or ``stopped``.
        spec: The organism.
        config: The organism.yaml in use if no ``spec`` is given; None, or its path, for the packaged file.

    Raises:
        ConfigError: The state directory cannot be written.
    """
    path = _path(spec.source if spec else config)
    state = Desired(
        desired=desired,
        config=path,
        fingerprint=spec.fingerprint() if spec else "",
        # The packaged file belongs to its release and is never edited; the next release starts its own.
        spec=spec if path else None,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    replace_file(settings.state_dir / FILE_NAME, json.dumps(state.to_dict()) + "\n")
    return state


def _spec(data: Any) -> OrganismSpec | None:
    try:
        spec = OrganismSpec.from_dict(data)
        # A release from before the agents' layers has written none: what runs this, runs them.
        return spec if spec.agents() else spec.with_python(agents_python(), environments())
    except (TypeError, KeyError, AttributeError, ValueError):
        # It is missing, or has keys of another release: its file is read instead.
        return None


def _path(config: str | Path | None) -> str | None:
    if not config:
        return None
    path = Path(config).absolute()
    # The packaged file belongs to a release; the next release has its own.
    packaged = path.name == "default_organism.yaml" and path.parent.name == "seedcore"
    return None if packaged else str(path)
