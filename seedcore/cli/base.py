"""Shared parts of all commands: exit codes, error messages, help texts, common options."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from seedcore.cli import INTERRUPTED
from seedcore.cli.output import keep_descriptor, reserved
from seedcore.cli.render import say
from seedcore.core.errors import ClusterError, ConfigError, SeedCoreError
from seedcore.core.reason import ExitCode

if TYPE_CHECKING:
    from seedcore.core.settings import Settings
    from seedcore.core.spec import OrganismSpec

OK, FAILED, USAGE, NOT_RUNNING, UNKNOWN, INITIALIZING = ExitCode
STATUS_CODES = (
    "0  healthy",
    "1  unhealthy or degraded",
    "2  usage or configuration",
    "3  not running: absent, not installed",
    "4  unknown: unreachable, unauthorized",
    "5  still initializing",
)
USAGE_CODES = ("0  done", "2  usage or configuration")


class Cli(click.Group):
    """A group that reports every error in one message and ends with the documented exit code.

    A command returns its exit code.
    """

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command and exit."""
        keep_descriptor()
        # In its standalone mode click turns Ctrl-C into exit code 1.
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
            # An error of this host, such as a full disk, tells nothing about the cluster.
            say(f"error: {error}")
            code = UNKNOWN
        except Exception:
            # A bug: the state of the cluster is unknown, and a bug report needs the full traceback.
            say(traceback.format_exc().rstrip())
            code = UNKNOWN
        sys.exit(code or OK)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, and keep other prints out of its standard output."""
        _reserve(cmd)
        super().add_command(cmd, name)


def _reserve(command: click.Command) -> None:
    """Reserve standard output for the results of the command and of its subcommands."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _reserve(below)
    elif (callback := command.callback) is not None:

        @functools.wraps(callback)
        def reserving(*args: Any, **options: Any) -> Any:
            with reserved():
                return callback(*args, **options)

        command.callback = reserving


def manual(*, examples: Sequence[tuple[str, str]], codes: Sequence[str]) -> str:
    """Return the examples and exit codes for the end of a command's help.

    Args:
        examples: Pairs of a command line and its purpose.
        codes: Exit codes, one line each.
    """
    width = max(len(line) for line, _ in examples)
    shown = [f"  {line.ljust(width)}   {text}".rstrip() for line, text in examples]
    return "\n".join(["\b", "Examples:", *shown, "", "\b", "Exit codes:", *(f"  {code}" for code in codes)])


def check_together(name: str, *, given: bool, needing: dict[str, bool]) -> None:
    """Reject options that have an effect only together with another one.

    Raises:
        click.UsageError: Some of ``needing`` are given without ``name``.
    """
    if not given and (alone := [option for option, present in needing.items() if present]):
        raise click.UsageError(f"{' and '.join(alone)} {'require' if alone[1:] else 'requires'} {name}")


def load(settings: Settings, config: str | None, *, starts: bool = False) -> OrganismSpec:
    """Read the given organism.yaml, else that of the settings, else the packaged one.

    If this command runs from the agents' layer of a deployment, their organs run from there, too. Schedules need an
    inbox: a command that ``starts`` the organism knows whether there is one, and others if their environment says it.
    """
    import os  # noqa: PLC0415 - keeps commands quick that do not need it
    from pathlib import Path  # noqa: PLC0415 - keeps commands quick that do not need it

    from seedcore.config.organism_file import load_config  # noqa: PLC0415
    from seedcore.core.release import agents_python, environments, is_deployed  # noqa: PLC0415

    path = Path(config) if config is not None else settings.config
    has_inbox = bool(settings.inbox) if starts or os.environ.get("SEEDCORE_INBOX") else None
    known = environments() if is_deployed() else None
    return load_config(path, has_inbox=has_inbox, environments=known).with_python(agents_python(), known)


config_option = click.option(
    "--config", type=click.Path(path_type=str), metavar="PATH",
    help="organism.yaml. [default: $SEEDCORE_CONFIG, else the packaged file]",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
