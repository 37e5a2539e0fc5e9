"""What the module seedcore_bootstrap and its action plugin share. No Ansible in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "wait_timeout": {"type": "int", "default": 60},
    "retries": {"type": "int", "default": 2},
    "replace": {"type": "bool", "default": False},
    "expected_release": {"type": "str"},
    "config": {"type": "path"},
    "executable": {"type": "path", "default": "seedcore"},
    "command_timeout": {"type": "int", "default": 30},
}


def faults(params: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the options, one text a fault, each with what is allowed."""
    found: list[str] = status.minimum_faults(params, {"wait_timeout": 1, "retries": 0, "command_timeout": 1})
    found += status.empty_faults(params, ("expected_release", "config", "executable"))
    return found


def argv(params: Mapping[str, Any], *, dry_run: bool) -> list[str]:
    """Return the command."""
    words = [params["executable"], "bootstrap", "--json", "--wait-timeout", str(params["wait_timeout"])]
    words += ["--retries", str(params["retries"])]
    if params["config"] is not None:
        words += ["--config", params["config"]]
    return words + ["--replace"] * params["replace"] + ["--dry-run"] * dry_run


def outcome(document: Mapping[str, Any] | None, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented keys from what the command printed; without a document nothing is known to have changed."""
    found = document or {}
    return {
        **report,
        "changed": bool(found.get("changed", False)),
        "action": str(found.get("action") or "none"),
        "creations": int(found.get("attempts") or 0),
        "cause": str(found.get("cause") or ""),
    }


def prediction(dry: Mapping[str, Any], expected_release: str | None) -> dict[str, Any]:
    """Turn the outcome of a dry run into what a real run would do once the expected release is active."""
    if dry["reason"] in {cli.NOT_INSTALLED, "unreachable"}:
        # A host without a release, or a Ray that the same play is yet to start: the Coordinator is yet to be made.
        return {**dry, "changed": True, "action": "create"}
    running = dry["coordinator"].get("release")
    if not dry["changed"] and expected_release is not None and running is not None and running != expected_release:
        return {**dry, "changed": True, "action": "replace"}
    return dict(dry)
