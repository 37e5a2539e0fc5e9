"""Manage named tokens for the HTTP interface, each with a scope and an optional expiry.

The cluster's own token grants access to everything, including the nodes. A user or program that only reads metrics or
submits tasks gets a named token, which grants access to HTTP only and can be revoked separately. The file stores
digests, so a token is shown only once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from seedcore.core.errors import ConfigError, Fault
from seedcore.core.state_file import open_lock, replace_file

FILE_NAME = "http_tokens.json"
CLUSTER_TOKEN = "cluster"  # noqa: S105 - its name
OPERATE_TYPES = frozenset({"initialize_organism", "shutdown_organism"})
"""Built-in tasks that change the organism and therefore require the scope ``operate``."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "sct_"


class Scope(StrEnum):
    """The permissions of a token; each scope includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"

    def covers(self, needed: Scope) -> bool:
        """Return True if this scope includes ``needed``."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Access:
    """The origin of a request: the name of its token, and the token's scope."""

    name: str
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedToken:
    """One token as the file stores it.

    Attributes:
        name: Name for people and for the log.
        scope: What the token permits.
        digest: SHA-256 of the token, hexadecimal.
        created: Unix time in seconds.
        expires: Unix time in seconds from which it is refused; None if it never expires.
    """

    name: str
    scope: Scope
    digest: str
    created: float
    expires: float | None = None

    def is_valid(self, now: float) -> bool:
        """Return True if the token has not expired at ``now``, a Unix time in seconds."""
        return self.expires is None or now < self.expires


def find(tokens: Sequence[NamedToken], credentials: bytes, now: float) -> Access | None:
    """Return the origin of the credentials, None if unknown; compare every digest, so that timing reveals nothing."""
    digest = hashlib.sha256(credentials).hexdigest()
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest) and token.is_valid(now):
            found = Access(token.name, token.scope)
    return found


def parse(text: str) -> tuple[NamedToken, ...]:
    """Parse the content of the file.

    Raises:
        ValueError: The content does not have the format that :class:`TokenFile` writes.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("tokens"), list):
        raise ValueError("expected an object with a list 'tokens'")  # noqa: TRY004 - one kind of error for a bad file
    return tuple(_token(entry) for entry in document["tokens"])


class TokenFile:
    """The file with a deployment's named tokens; only its owner can read it.

    Args:
        state_dir: ``Settings.state_dir``.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME

    def read(self) -> tuple[NamedToken, ...]:
        """Return the tokens; none if there is no file.

        Raises:
            ConfigError: The file cannot be read or parsed.
        """
        try:
            return parse(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError((Fault(str(self.path), 0, 0, f"cannot be read: {error.strerror}"),)) from error
        except ValueError as error:
            raise ConfigError((Fault(str(self.path), 0, 0, f"is damaged: {error}"),)) from error

    def add(self, name: str, scope: Scope, *, now: float, lifetime_s: float | None = None) -> str:
        """Create a token and return it; it cannot be read again.

        Raises:
            ConfigError: The name is taken or malformed, or the file cannot be read or written.
        """
        if not _NAME.fullmatch(name) or name == CLUSTER_TOKEN:
            allowed = f"up to 64 letters, digits, dots, dashes and underscores, and not {CLUSTER_TOKEN!r}"
            raise ConfigError((Fault("NAME", 0, 0, f"got {name!r}, expected {allowed}"),))
        token = _PREFIX + secrets.token_urlsafe(32)
        with self._changing() as tokens:
            if any(one.name == name for one in tokens):
                text = f"token {name!r} exists already; revoke it first"
                raise ConfigError((Fault(str(self.path), 0, 0, text),))
            digest = hashlib.sha256(token.encode()).hexdigest()
            expires = None if lifetime_s is None else now + lifetime_s
            tokens.append(NamedToken(name=name, scope=scope, digest=digest, created=now, expires=expires))
        return token

    def revoke(self, name: str) -> None:
        """Remove a token.

        Raises:
            ConfigError: No token has this name, or the file cannot be read or written.
        """
        with self._changing() as tokens:
            left = [one for one in tokens if one.name != name]
            if len(left) == len(tokens):
                known = ", ".join(one.name for one in tokens) or "none"
                raise ConfigError((Fault(str(self.path), 0, 0, f"no token {name!r}; existing tokens: {known}"),))
            tokens[:] = left

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[NamedToken]]:
        """Yield the tokens under a lock between processes, and write them if the block ends without an error."""
        lock = open_lock(self.path.with_suffix(".lock"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = list(self.read())
            yield tokens
            text = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1) + "\n"
            replace_file(self.path, text)
        finally:
            os.close(lock)


def _token(entry: Any) -> NamedToken:
    if not isinstance(entry, Mapping):
        raise ValueError("a token is not an object")  # noqa: TRY004 - as above
    try:
        expires = entry["expires"]
        return NamedToken(
            name=str(entry["name"]),
            scope=Scope(entry["scope"]),
            digest=str(entry["digest"]),
            created=float(entry["created"]),
            expires=None if expires is None else float(expires),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a token lacks a key or has a wrong one: {error}") from error
