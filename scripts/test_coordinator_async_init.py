#!/usr/bin/env python3
"""Check the Coordinator's asynchronous initialization on the cluster that the environment names.

Three checks on real actors: the deployed Coordinator answers the calls of the mission's document; a second
Coordinator starts in a temporary namespace; the creation of a Coordinator whose organism cannot start fails with the
cause. The script removes every actor that it creates. Exit code 0 if all checks pass, 1 otherwise.
"""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

try:
    from seedcore.core.settings import Settings, adopt_deployment

    # Import this before Ray: Ray reads its authentication settings at import.
    adopt_deployment()

    import click
    import ray
    from ray.actor import ActorHandle
    from ray.exceptions import ActorDiedError

    from seedcore.config.organism_file import load_config
    from seedcore.coordinator import actors as actor
    from seedcore.core.errors import SeedCoreError
    from seedcore.core.spec import OrganismSpec
    from seedcore.status.probing import probe
    from seedcore.status.state_api import read_cluster
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Let this shell use the deployment's Python first: . ~/.local/share/seedcore/bin/activate")

ANSWER_TIMEOUT_S = 30.0
INIT_TIMEOUT_S = 120.0
STATUS_KEYS = {"status", "organism_initialized", "coordinator"}
ORGAN_KEYS = {"organ_id", "organ_type", "agent_count", "agent_ids", "status", "ready"}


class CheckError(SeedCoreError):
    """A check failed."""


def require(holds: object, *, what: str) -> None:
    """Raise an error if the condition is false.

    Raises:
        CheckError: ``holds`` is false; ``what`` is the message.
    """
    if not holds:
        raise CheckError(what)


def answers_as_documented(coordinator: ActorHandle[Any], *, timeout_s: float) -> None:
    """Call ``get_status``, ``ping`` and ``handle``, and check the shape of each answer."""
    status: Any = ray.get(coordinator.get_status.remote(), timeout=timeout_s)
    require(status.keys() >= STATUS_KEYS, what=f"get_status() lacks keys: {status}")
    require(status["status"] == "healthy", what=f"get_status() is not healthy: {status.get('message')}")
    require(status["organism_initialized"] is True, what=f"the organism is not initialized: {status}")
    require(status["coordinator"] == "available", what=f"the Coordinator is not available: {status}")
    require("error" not in status, what=f"a healthy status has an error: {status}")
    pong = ray.get(coordinator.ping.remote(), timeout=timeout_s)
    require(pong == "pong", what=f"ping() answered {pong!r}")
    answer = ray.get(coordinator.handle.remote({"type": "get_organism_status"}), timeout=timeout_s)
    require(answer.get("success") is True, what=f"get_organism_status failed: {answer}")
    require(answer["result"], what="the organism has no organs")
    for organ in answer["result"]:
        require(organ.keys() >= ORGAN_KEYS, what=f"an organ lacks keys: {organ}")
    unknown = ray.get(coordinator.handle.remote({"type": "no such task"}), timeout=timeout_s)
    require(unknown.get("success") is False, what=f"an unknown task succeeded: {unknown}")
    require(unknown.keys() >= {"error", "error_type", "task_type"}, what=f"an error lacks keys: {unknown}")


def check_deployed(settings: Settings) -> None:
    """Check that the running Coordinator answers as documented."""
    coordinator = actor.coordinator_handle(settings.namespace)
    if coordinator is None:
        raise CheckError(f"there is no Coordinator in namespace {settings.namespace!r}")
    answers_as_documented(coordinator, timeout_s=ANSWER_TIMEOUT_S)


def check_init(settings: Settings) -> None:
    """Check that a new Coordinator awaits its organism inside ``async __init__`` and answers afterwards."""
    spec = load_config(None)
    with_one_organ = OrganismSpec(organs=spec.organs[:1], source=spec.source)
    answers_as_documented(_create(settings, with_one_organ), timeout_s=INIT_TIMEOUT_S)


def check_failed_init(settings: Settings) -> None:
    """Check that an organism that cannot start fails the creation with the cause and leaves no actor."""
    organ = replace(load_config(None).organs[0], agent="seedcore_has_no_such_module:agent", required=True)
    coordinator = _create(settings, OrganismSpec(organs=(organ,)))
    try:
        ray.get(coordinator.ping.remote(), timeout=INIT_TIMEOUT_S)
    except ActorDiedError as error:
        text = str(error)
        require("RuntimeError: Coordinator initialization failed" in text, what=f"the death has another cause: {text}")
        require("seedcore_has_no_such_module" in text, what=f"the message lacks the cause: {text}")
    else:
        raise CheckError("a Coordinator whose agents do not exist came up")
    left = alive(settings)
    require(not left, what=f"actors are left: {', '.join(left)}")


def alive(settings: Settings) -> list[str]:
    """Return the names of the namespace's actors that are not dead."""
    state = read_cluster(settings, token=settings.token(), timeout_s=ANSWER_TIMEOUT_S)
    return sorted(str(row.get("name")) for row in state.actors if row.get("state") != "DEAD")


def remove(settings: Settings) -> None:
    """Kill every actor of the namespace."""
    handle = actor.coordinator_handle(settings.namespace)
    if handle is not None:
        ray.kill(handle, no_restart=True)
    actor.kill_organs(settings.namespace)


def _create(settings: Settings, spec: OrganismSpec) -> ActorHandle[Any]:
    values = {
        "namespace": settings.namespace,
        "http_host": settings.http_host,
        # Any free port: the deployed Coordinator uses the configured one.
        "http_port": 0,
        "auth_enabled": settings.auth_enabled,
        "token_path": str(settings.token_path),
    }
    return actor.create_coordinator(spec.to_dict(), values, namespace=settings.namespace, attempt=1)


def _attempt(name: str, check: Callable[[Settings], None], settings: Settings) -> bool:
    try:
        check(settings)
    except CheckError as error:
        click.echo(f"FAILED {name}: {error}", err=True)
    except Exception:
        # Run the remaining checks after any error: their results help to find its cause.
        click.echo(f"FAILED {name}:\n{traceback.format_exc()}", err=True)
    else:
        click.echo(f"ok {name}")
        return True
    return False


def main() -> int:
    """Run the checks."""
    try:
        settings = Settings.from_env()
        report = probe(settings)
    except SeedCoreError as error:
        click.echo(str(error), err=True)
        return 1
    if report.reason in {"unreachable", "unauthorized"}:
        # Joining a Ray that does not run would take most of a minute to fail.
        click.echo(f"{report.reason}: {report.message}", err=True)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ray.init(
        address=settings.address or "auto",
        namespace=settings.namespace,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    scratch = replace(settings, namespace=f"seedcore-selftest-{secrets.token_hex(4)}")
    passed = [_attempt("the deployed Coordinator answers as documented", check_deployed, settings)]
    for name, check in (
        ("a new Coordinator initializes asynchronously", check_init),
        ("an initialization that fails fails the creation", check_failed_init),
    ):
        try:
            passed.append(_attempt(name, check, scratch))
        finally:
            remove(scratch)
    ray.shutdown()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
