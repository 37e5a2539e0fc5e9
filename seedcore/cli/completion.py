"""The command that prints shell completion scripts."""

from __future__ import annotations

import click

from seedcore.cli.base import OK, USAGE_CODES, manual
from seedcore.cli.render import out

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_SEEDCORE_COMPLETE"


@click.command(
    epilog=manual(
        examples=[
            ('eval "$(seedcore completion bash)"', "in ~/.bashrc"),
            ('eval "$(seedcore completion zsh)"', "in ~/.zshrc"),
            ("seedcore completion fish > ~/.config/fish/completions/seedcore.fish", "once"),
        ],
        codes=USAGE_CODES,
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> int:
    """Print a script with which a shell completes commands, options and task types."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - a shell's start shall be quick

    chosen = get_completion_class(shell)
    assert chosen is not None  # noqa: S101 - click knows those three
    root = ctx.find_root()
    out(chosen(root.command, {}, "seedcore", VARIABLE).source())
    return OK
