"""Commands for named tokens of the HTTP interface."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

from seedcore.cli.base import OK, USAGE_CODES, json_option, manual
from seedcore.cli.render import aligned, out, out_json, say
from seedcore.core.access import Scope
from seedcore.core.settings import Settings

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LIFETIME = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_CODES = USAGE_CODES
_SCOPES = [str(scope) for scope in Scope]


class Lifetime(click.ParamType[float]):
    """A duration in seconds, given as a number with a unit: ``30d``, ``12h``, ``90m`` or ``45s``."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse ``value``."""
        found = _LIFETIME.fullmatch(str(value))
        if found is None:
            self.fail(f"got {value!r}, expected a number with a unit: 30d, 12h, 90m or 45s", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.group(
    epilog=manual(
        examples=[
            ("seedcore token add grafana --scope read", "for a dashboard or Prometheus"),
            ("seedcore token add ci --scope submit --expires-in 30d", "for a program that submits tasks"),
            ("seedcore token list", ""),
            ("seedcore token revoke ci", "refused within a second"),
        ],
        codes=_CODES,
    )
)
def token() -> None:
    """Add, list and revoke tokens for the HTTP interface.

    Run it on the head, as the deployment's user. A named token grants access to HTTP only; Ray's own token grants
    access to every node and must stay inside the cluster. The Coordinator applies changes within a second, without a
    restart.
    """


@token.command(
    epilog=manual(
        examples=[("seedcore token add ci --scope submit --expires-in 30d", "prints the token")], codes=_CODES
    )
)
@click.argument("name")
@click.option(
    "--scope", type=click.Choice(_SCOPES), required=True,
    help="read: status and metrics; submit: also submit tasks; operate: also tasks that change the organism.",
)  # fmt: skip
@click.option("--expires-in", type=Lifetime(), help="Lifetime: 30d, 12h, 90m or 45s. [default: for ever]")
def add(*, name: str, scope: str, expires_in: float | None) -> int:
    """Create a token and print it once: the file stores only its digest."""
    from seedcore.core.access import TokenFile

    made = TokenFile(Settings.from_env().state_dir).add(name, Scope(scope), now=time.time(), lifetime_s=expires_in)
    out(made)
    say(f"token {name}: scope {scope}; store it now, it cannot be shown again")
    return OK


@token.command("list", epilog=manual(examples=[("seedcore token list --json", "for a program")], codes=_CODES))
@json_option
def list_(*, as_json: bool) -> int:
    """List the tokens by name, with their scope and expiry."""
    from seedcore.core.access import TokenFile

    tokens, now = TokenFile(Settings.from_env().state_dir).read(), time.time()
    if as_json:
        out_json(
            [
                {
                    "name": one.name,
                    "scope": str(one.scope),
                    "created": _iso(one.created),
                    "expires": None if one.expires is None else _iso(one.expires),
                    "valid": one.is_valid(now),
                }
                for one in tokens
            ]
        )
        return OK
    if not tokens:
        say("there are no named tokens")
        return OK
    rows = [
        [
            one.name,
            str(one.scope),
            _iso(one.created),
            "never" if one.expires is None else _iso(one.expires) + ("" if one.is_valid(now) else " (expired)"),
        ]
        for one in tokens
    ]
    out("\n".join(aligned(["NAME", "SCOPE", "CREATED", "EXPIRES"], rows)))
    return OK


@token.command(epilog=manual(examples=[("seedcore token revoke ci", "")], codes=_CODES))
@click.argument("name")
def revoke(*, name: str) -> int:
    """Revoke a token: the Coordinator refuses it within a second."""
    from seedcore.core.access import TokenFile

    TokenFile(Settings.from_env().state_dir).revoke(name)
    say(f"token {name} is revoked")
    return OK


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
