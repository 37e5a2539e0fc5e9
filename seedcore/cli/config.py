"""Commands that check or print a configuration without starting anything."""

from __future__ import annotations

import click

from seedcore.cli.base import OK, USAGE_CODES, config_option, json_option, load, manual
from seedcore.cli.render import out, out_json
from seedcore.core.settings import Settings

_CODES = ("0  valid", "2  usage or configuration: lists every error with its line and column")


@click.group(
    epilog=manual(
        examples=[
            ("seedcore config check --config organism.yaml", "check a file before you deploy it"),
            ("seedcore config show", "print the configuration with every default"),
        ],
        codes=_CODES,
    )
)
def config() -> None:
    """Check or print a configuration without starting anything."""


@config.command(epilog=manual(examples=[("seedcore config check --config organism.yaml", "")], codes=_CODES))
@config_option
def check(*, config: str | None) -> int:
    """Check organism.yaml and list every error with its line and column."""
    spec = load(Settings.from_env(), config)
    agents = sum(organ.agent_count for organ in spec.organs)
    schedules = f", {len(spec.schedules)} schedules" if spec.schedules else ""
    text = f"valid, {len(spec.organs)} organs, {agents} agents{schedules}, fingerprint {spec.fingerprint()}"
    out(f"{spec.source}: {text}")
    return OK


@config.command(
    epilog=manual(
        examples=[
            ("seedcore config show", ""),
            ("seedcore config show --json --config organism.yaml", "print JSON for a program"),
        ],
        codes=_CODES,
    )
)
@config_option
@json_option
def show(*, config: str | None, as_json: bool) -> int:
    """Print organism.yaml with every default filled in."""
    spec = load(Settings.from_env(), config)
    organs = [{key: value for key, value in organ.to_dict().items() if key != "python"} for organ in spec.organs]
    organism = {"organ_types": organs}
    if spec.schedules:
        organism["schedules"] = [schedule.to_dict() for schedule in spec.schedules]
    document = {"seedcore": {"organism": organism}}
    if as_json:
        out_json(document)
    else:
        import yaml  # noqa: PLC0415 - only where it is needed

        head = f"# from {spec.source}, fingerprint {spec.fingerprint()}\n"
        out(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())
    return OK


@config.command(
    epilog=manual(
        examples=[("seedcore config schema > organism.schema.json", "for completion in an editor")],
        codes=USAGE_CODES,
    )
)
def schema() -> int:
    """Print the JSON schema of organism.yaml, for editors.

    A line "# yaml-language-server: $schema=PATH" in organism.yaml tells an editor where the schema is.
    """
    from seedcore.config.schema import config_schema  # noqa: PLC0415 - only where it is needed

    out_json(config_schema())
    return OK
