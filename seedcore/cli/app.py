"""The commands. Each imports what it needs when it runs, and Ray only where it must join the cluster."""
# ruff: noqa: PLC0415

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from seedcore.cli import INTERRUPTED
from seedcore.cli.params import JsonObject, Seconds, Text
from seedcore.cli.render import Progress, out, out_json, plain, report_block, say
from seedcore.errors import ClusterError, ConfigError, SeedCoreError
from seedcore.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from seedcore.spec import OrganismSpec
    from seedcore.status import Report

OK, FAILED, USAGE, UNKNOWN = 0, 1, 2, 4
DEFAULT_WAIT_S = 300.0


class Cli(click.Group):
    """Turns every way a command can end into one clear word and the documented exit code.

    A command returns its exit code.
    """

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit."""
        # Click's own way of ending would turn Ctrl-C into exit code 1.
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.ClickException as error:
            error.show()
            code = USAGE
        except click.Abort:
            say("interrupted")
            code = INTERRUPTED
        except ConfigError as error:
            say(str(error))
            code = USAGE
        except ClusterError as error:
            say(f"{error.reason}: {error}")
            code = UNKNOWN
        except SeedCoreError as error:
            say(f"error: {error}")
            code = FAILED
        except OSError as error:
            say(f"error: {error}")
            code = FAILED
        except Exception:
            # A fault of ours: nothing is known about the cluster, and the whole trace is what a report needs.
            say(traceback.format_exc().rstrip())
            code = UNKNOWN
        sys.exit(code or OK)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's protocol
    if value and not ctx.resilient_parsing:
        from seedcore import __version__
        from seedcore.release import is_deployed, release_id

        out(f"seedcore {__version__}" + (f" (release {release_id()})" if is_deployed() else ""))
        ctx.exit()


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli() -> None:
    r"""Start, watch and use a SeedCore organism on a Ray cluster.

    Where the cluster is comes from the environment: RAY_ADDRESS, RAY_NAMESPACE, SEEDCORE_DASHBOARD_URL and
    others, which a deployment writes into etc/seedcore.env.

    \b
    Exit codes: 0 healthy, 1 unhealthy or degraded, 2 usage or configuration,
    3 not running, 4 unknown (unreachable, unauthorized), 5 still initializing.
    """


_config_option = click.option(
    "--config", type=click.Path(path_type=str), metavar="PATH",
    help="organism.yaml. [default: $SEEDCORE_CONFIG, else the one in the package]",
)  # fmt: skip
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@cli.command()
@_config_option
@_json_option
@click.option("--wait-timeout", type=Seconds(), default=60.0, show_default=True, help="Until it has to be healthy.")
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=2,
    show_default=True,
    help="New attempts after a failed one.",
)
@click.option("--replace", is_flag=True, help="Replace a running Coordinator even if nothing has changed.")
@click.option("--dry-run", is_flag=True, help="Change nothing, say what would be done.")
@click.option("--keep-desired", is_flag=True, hidden=True, help="For the supervisor, which repeats what was wanted.")
def bootstrap(
    *,
    config: str | None,
    as_json: bool,
    wait_timeout: float,
    retries: int,
    replace: bool,
    dry_run: bool,
    keep_desired: bool,
) -> int:
    """Make sure that the Coordinator runs, with this release and this configuration.

    One that is right already is left alone. The organism has come up when this ends with exit code 0.
    """
    settings = Settings.from_env()
    spec = _load(settings, config)
    from seedcore.bootstrap import bootstrap as ensure

    progress = Progress()
    try:
        outcome = ensure(
            settings, spec, wait_timeout_s=wait_timeout, retries=retries, replace=replace, dry_run=dry_run,
            keep_desired=keep_desired, on_progress=progress,
        )  # fmt: skip
    finally:
        progress.done()
    if as_json:
        out_json(outcome.to_dict())
    else:
        would = "would " if dry_run else ""
        say(f"action: {would}{outcome.action} (attempts {outcome.attempts}, {outcome.elapsed_s:.1f} s)")
        out(report_block(outcome.report))
        if outcome.cause:
            # Ray puts an empty line after each line; the document of --json holds it as it is.
            say("\n".join(line for line in outcome.cause.splitlines() if line.strip()))
    if dry_run or outcome.report.exit_code == OK:
        return OK
    # Last, because a log is read from its end.
    say(f"{outcome.report.reason}: {plain(outcome.report.message)}")
    return outcome.report.exit_code


@cli.command()
@_json_option
@click.option("--wait", "wait_", is_flag=True, help="Until healthy, or until waiting cannot mend it.")
@click.option(
    "--timeout",
    type=Seconds(zero=True),
    help=f"Seconds to wait. [default: {DEFAULT_WAIT_S:.0f}; needs --wait]",
)
@click.option("--stable", type=Seconds(zero=True), help="It has to be healthy this long at a stretch; needs --wait.")
@click.option("--canary", is_flag=True, help="A nonce has to come back through every organ; needs --wait.")
@click.option("--expected-release", type=Text(), metavar="ID", help="Another release is unhealthy.")
@click.option("--expected-nodes", type=click.IntRange(min=1), metavar="N", help="Fewer living nodes are unhealthy.")
@click.option("--allow-degraded", is_flag=True, help="Degraded is healthy enough.")
def status(
    *,
    as_json: bool,
    wait_: bool,
    timeout: float | None,
    stable: float | None,
    canary: bool,
    expected_release: str | None,
    expected_nodes: int | None,
    allow_degraded: bool,
) -> int:
    """Say what is true now."""
    from seedcore.status import probe, wait

    settings = Settings.from_env()
    expectations: dict[str, Any] = {
        "expected_release": expected_release,
        "expected_nodes": expected_nodes,
        "allow_degraded": allow_degraded,
    }
    if not wait_:
        given = {"--timeout": timeout is not None, "--stable": stable is not None, "--canary": canary}
        if alone := [name for name, present in given.items() if present]:
            raise click.UsageError(f"{', '.join(alone)} without --wait, allowed is only together with it")
        report = probe(settings, **expectations)
    else:
        progress = Progress()

        def changed(now: Report) -> None:
            progress(f"{now.status}: {now.message}")

        try:
            report = wait(
                settings, timeout_s=DEFAULT_WAIT_S if timeout is None else timeout, stable_s=stable or 0.0,
                canary=canary, on_change=changed, **expectations,
            )  # fmt: skip
        finally:
            progress.done()
    if as_json:
        out_json(report.to_dict())
    else:
        out(report_block(report))
    return report.exit_code


@cli.command()
@click.option("--timeout", type=Seconds(), default=3.0, show_default=True, help="Seconds to wait for the answer.")
def ping(*, timeout: float) -> int:
    """Ask the Coordinator for a sign of life; prints pong."""
    from seedcore.cli import ask
    from seedcore.status import probe

    settings = Settings.from_env()
    started = time.monotonic()
    try:
        answer = ask.pong(settings, timeout_s=timeout)
    except OSError as error:
        trouble = ask.explain(settings, error)
        say(f"{trouble.reason}: {plain(trouble)}")
        return probe(settings).exit_code or FAILED
    out("pong")
    say(
        f"pid {answer.get('pid')} in {1000 * (time.monotonic() - started):.0f} ms, "
        f"{plain(answer.get('status'))}: {plain(answer.get('message', ''))}"
    )
    return OK


@cli.command()
@click.argument("task_type", metavar="TYPE", type=Text())
@click.option(
    "--params",
    type=JsonObject(),
    default="{}",
    metavar="JSON|-",
    help="The task's params, or - to read them from stdin.",
)
@click.option("--domain", type=Text(), help="Narrows the choice of the organ.")
@click.option("--timeout", type=Seconds(), help="Seconds the task may take. [default: the organ's own limit]")
def submit(*, task_type: str, params: dict[str, Any], domain: str | None, timeout: float | None) -> int:
    """Give the organism one task; prints its answer as JSON.

    Exit code 0 if the work succeeded, 1 if it failed, 4 if there is nobody to ask.
    """
    from seedcore.cli import ask

    settings = Settings.from_env()
    task: dict[str, Any] = {"type": task_type, "params": params}
    if domain is not None:
        task["domain"] = domain
    if timeout is not None:
        task["timeout_s"] = timeout
    answer = ask.task(settings, task, timeout_s=timeout)
    out_json(answer)
    if answer["success"] is True:
        return OK
    say(f"{plain(answer.get('error_type', 'error'))}: {plain(answer.get('error', ''))}")
    return FAILED


@cli.group()
def config() -> None:
    """Look at a configuration without starting anything."""


@config.command()
@_config_option
def check(*, config: str | None) -> int:
    """Check organism.yaml; every fault with its line and column."""
    spec = _load(Settings.from_env(), config)
    agents = sum(organ.agent_count for organ in spec.organs)
    out(f"{spec.source}: valid, {len(spec.organs)} organs, {agents} agents, fingerprint {spec.fingerprint()}")
    return OK


@config.command()
@_config_option
@_json_option
def show(*, config: str | None, as_json: bool) -> int:
    """Print organism.yaml with every default filled in."""
    spec = _load(Settings.from_env(), config)
    document = {"seedcore": {"organism": {"organ_types": [organ.to_dict() for organ in spec.organs]}}}
    if as_json:
        out_json(document)
    else:
        import yaml

        head = f"# from {spec.source}, fingerprint {spec.fingerprint()}\n"
        out(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())
    return OK


@config.command()
def schema() -> int:
    """Print the JSON schema of organism.yaml, for editors.

    A line "# yaml-language-server: $schema=PATH" in organism.yaml tells them where it is.
    """
    from seedcore.schema import config_schema

    out_json(config_schema())
    return OK


@cli.command()
@click.option("--interval", type=Seconds(), default=2.0, show_default=True, help="Between two probes.")
@click.option(
    "--hang-timeout", type=Seconds(), default=15.0, show_default=True,
    help="A Coordinator that has not answered for so long is killed; Ray starts it again.",
)  # fmt: skip
@click.option(
    "--init-stall-timeout", type=Seconds(), default=600.0, show_default=True,
    help="The same for one that initializes and whose progress stands still.",
)  # fmt: skip
@click.option(
    "--bootstrap-timeout", type=Seconds(), default=120.0, show_default=True,
    help="For each bootstrap that this service runs.",
)  # fmt: skip
def supervise(*, interval: float, hang_timeout: float, init_stall_timeout: float, bootstrap_timeout: float) -> int:
    """Watch the Coordinator and mend what Ray does not see; a service for the head."""
    import logging

    from seedcore.supervise import Policy, Supervisor

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    policy = Policy(
        interval_s=interval, hang_timeout_s=hang_timeout, init_stall_timeout_s=init_stall_timeout,
        bootstrap_timeout_s=bootstrap_timeout,
    )  # fmt: skip
    return Supervisor(Settings.from_env(), policy=policy).run()


@cli.command()
@_json_option
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Seconds for the organs to stop.")
def shutdown(*, as_json: bool, timeout: float) -> int:
    """Stop the Coordinator and its organs; Ray goes on running."""
    from seedcore.bootstrap import shutdown as stop

    stopped = stop(Settings.from_env(), timeout_s=timeout)
    if as_json:
        out_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "nothing was running")
    return OK


def _load(settings: Settings, config: str | None) -> OrganismSpec:
    from pathlib import Path

    from seedcore.config import load_config

    chosen: Path | None = Path(config) if config is not None else settings.config
    return load_config(chosen)
