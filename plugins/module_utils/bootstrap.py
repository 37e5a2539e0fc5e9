"""Code shared by the module seedcore_bootstrap and its action plugin. It does not import Ansible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "wait_timeout": {"type": "int", "default": 60},
    "retries": {"type": "int", "default": 2},
    "replace": {"type": "bool", "default": False},
    "expected_release": {"type": "str"},
    "expected_agents": {"type": "str"},
    "bake_seconds": {"type": "int", "default": 0},
    "bake_tolerance": {"type": "float", "default": 0.5},
    "config": {"type": "path"},
    "executable": {"type": "path", "default": "seedcore"},
    "command_timeout": {"type": "int", "default": 30},
}


def faults(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options, one text per fault, each with the expected value."""
    least = {"wait_timeout": 1, "retries": 0, "command_timeout": 1, "bake_seconds": 0, "bake_tolerance": 0}
    found: list[str] = status.minimum_faults(params, least)
    found += status.empty_faults(params, ("expected_release", "config", "executable"))
    return found


def argv(params: Mapping[str, Any], *, dry_run: bool) -> list[str]:
    """Return the command."""
    words = [params["executable"], "bootstrap", "--json", "--wait-timeout", str(params["wait_timeout"])]
    words += ["--retries", str(params["retries"])]
    if params["bake_seconds"]:
        words += ["--bake", str(params["bake_seconds"]), "--bake-tolerance", str(params["bake_tolerance"])]
    if params["config"] is not None:
        words += ["--config", params["config"]]
    return words + ["--replace"] * params["replace"] + ["--dry-run"] * dry_run


def outcome(document: Mapping[str, Any] | None, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented keys from the output of the command; without a document, changed is False."""
    found = document or {}
    return {
        **report,
        "changed": bool(found.get("changed", False)),
        "action": str(found.get("action") or "none"),
        "creations": int(found.get("attempts") or 0),
        "cause": str(found.get("cause") or ""),
        "baked": str(found.get("baked") or ""),
    }


def prediction(
    dry: Mapping[str, Any], expected_release: str | None, expected_agents: str | None = None
) -> dict[str, Any]:
    """Turn the outcome of a dry run into the action of a real run with the expected release and agents."""
    if dry["reason"] in {cli.NOT_INSTALLED, "unreachable"}:
        # Without a release, or before the same play has started Ray, the Coordinator would be created.
        return {**dry, "changed": True, "action": "create"}
    running = dry["coordinator"].get("release")
    if not dry["changed"] and expected_release is not None and running is not None and running != expected_release:
        return {**dry, "changed": True, "action": "replace"}
    # The layers that organs run from; there may be more than that.
    agents = dry["coordinator"].get("agents")
    stays = not expected_agents or not agents or set(agents.split(",")) <= set(expected_agents.split(","))
    if not dry["changed"] and not stays:
        return {**dry, "changed": True, "action": "reload"}
    return dict(dry)
