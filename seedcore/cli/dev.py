"""Commands for developers of agents: create a project, and run an organism that follows its files."""
# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from seedcore.cli.base import OK, USAGE_CODES, manual
from seedcore.cli.render import out, plain, printable, say
from seedcore.core.settings import MAX_PORT

DEFAULT_PORT = 8700


@click.command(
    epilog=manual(
        examples=[
            ("seedcore dev", "use organism.yaml of this directory"),
            ("seedcore dev organism.yaml --path src", "import agents from src, and watch it"),
        ],
        codes=(
            "0  ended by Ctrl-C or SIGTERM",
            "2  usage or configuration; nothing was started",
            "4  Ray did not come up",
        ),
    )
)
@click.argument("file", default="organism.yaml", type=click.Path(path_type=Path))
@click.option(
    "--path", "paths", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory to import agents from and to watch. Repeatable. "
    "[default: the directory of FILE and its subdirectories with a pyproject.toml]",
)  # fmt: skip
@click.option("--port", type=click.IntRange(1, MAX_PORT), help=f"HTTP port. [default: {DEFAULT_PORT}, else a free one]")
def dev(*, file: Path, paths: tuple[Path, ...], port: int | None) -> int:
    """Run an organism on this machine and replace its organs when a file changes.

    The command starts a private Ray, imports the agents from the directories of --path, and prints their output. A
    faulty change (a syntax error, a wrong option) is reported and not applied. At the end the command stops everything
    and removes it.
    """
    from seedcore.config.organism_file import load_config
    from seedcore.deployment.dev_session import DevSession, import_paths
    from seedcore.deployment.local_ray import free_ports

    # Check the port before anything starts.
    load_config(file, check_imports=False)
    taken = port if port is not None else DEFAULT_PORT
    if not free_ports(1, first=taken):
        if port is not None:
            raise click.UsageError(f"--port {port} is in use by another process")
        taken = 0
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    session = DevSession(
        file, list(paths) or import_paths(file), http_port=taken,
        say=lambda text: say("\n".join(printable(line) for line in text.splitlines())),
        show=lambda name, line: out(f"[{plain(name)}] {printable(line)}"),
    )  # fmt: skip
    session.run(until=ended)
    say("stopped; nothing is left running")
    return OK


@click.command(
    epilog=manual(
        examples=[
            ("seedcore new my_agents", "write my_agents/ and organism.yaml"),
            ("seedcore dev", "then run it"),
        ],
        codes=USAGE_CODES,
    )
)
@click.argument("name")
def new(*, name: str) -> int:
    """Write a project with one agent, its test, and an organism.yaml that uses it.

    NAME is the project's directory and the name of its module. The command never overwrites a file.
    """
    from seedcore.cli.new_project import write

    for path in write(Path(), name):
        out(str(path))
    params = f'{{"path": "{Path(name).absolute()}/{name}.py"}}'
    say(f"next: seedcore dev, and in another shell: seedcore submit count_lines --params '{params}'")
    return OK
