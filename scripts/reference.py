"""Generate docs/reference from the code, or list the outdated files: python -m scripts.reference [--check]."""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from scripts.example_coordinator import ExampleCoordinator
from seedcore.cli.app import cli
from seedcore.config.organism_file import PACKAGED_CONFIG
from seedcore.config.schema import config_schema
from seedcore.coordinator.http.app import create_app
from seedcore.coordinator.http.metrics import METRICS
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganSpec

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
STATUS_PAGE = ROOT / "docs" / "status.md"
COMMENTS_AT = 41
HEAD = "<!-- Made from the code by `make docs`: change it there. -->\n\n"
ROLES = ("deployment", "ray", "seedcore", "seedcore_bootstrap", "seedcore_gate", "monitoring", "service")
EXAMPLE = """\
```yaml
# yaml-language-server: $schema=organism.schema.json
seedcore:
  organism:
    organ_types:
      - id: files
        type: Files
        agent: my_agents:count_lines
        task_types: [count_lines]
```
"""


def main(arguments: list[str]) -> int:
    """Write the files that have changed; with ``--check`` only list them and return 1 if there are any."""
    outdated = []
    for name, make in PAGES.items():
        text = make()
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path, complete in PARTS.items():
        text = path.read_text(encoding="utf-8")
        if (wanted := complete(text)) != text:
            outdated.append(path.name)
            if "--check" not in arguments:
                path.write_text(wanted, encoding="utf-8")
    known = {*PAGES}
    outdated += [path.name for path in REFERENCE.glob("*") if path.name not in known]
    if "--check" in arguments and outdated:
        click.echo(f"out of date: {', '.join(outdated)}; `make docs` regenerates them", err=True)
        return 1
    return 0


def command_line() -> str:
    """Return the help text of every command as a terminal shows it."""

    def sections(command: click.Command, path: str) -> Iterable[str]:
        context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
        context.help_option_names = ["-h", "--help"]
        yield f"## {path}\n\n```text\n{click.unstyle(command.get_help(context)).rstrip()}\n```\n"
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and not inner.hidden:
                    yield from sections(inner, f"{path} {name}")

    return page("The command line", *sections(cli, "seedcore"))


def organism() -> str:
    """Return the page about the keys of an organ and of a schedule, with defaults and bounds."""

    def rows(kind: str) -> Iterable[list[str]]:
        keys = config_schema()["$defs"][kind]
        for name, entry in keys["properties"].items():
            meaning, allowed = entry["description"].rsplit(" Allowed: ", 1)
            default = "required" if name in keys["required"] else code(entry["default"]) if "default" in entry else ""
            yield [f"`{name}`", default, meaning, allowed.removesuffix(".")]

    return page(
        "organism.yaml",
        "The organs are under `seedcore`, `organism`, `organ_types`: a list of one or more. "
        "`seedcore config check` names every fault with line and column.\n",
        "An editor that knows [the schema](organism.schema.json) completes keys and marks faults; "
        "`seedcore config schema` prints it. The first line of the file says where it is:\n",
        EXAMPLE,
        table(["key", "default", "meaning", "allowed"], rows("organ")),
        "## Schedules\n",
        "`seedcore`, `organism`, `schedules` is a list of schedules: "
        "[durable tasks](../durable.md#schedules) that are planned again and again.\n",
        table(["key", "default", "meaning", "allowed"], rows("schedule")),
    )


def schema() -> str:
    """Return the JSON schema of organism.yaml as text."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def environment() -> str:
    """Return the page about the library's environment variables.

    Raises:
        LookupError: The docstring of Settings does not name the variable of a setting.
    """
    rows = []
    for name, text in attribute_docs(Settings).items():
        found = re.search(r"\(([^()]*`[A-Z][A-Z_]+[^()]*)\)", text)
        if found is None:
            raise LookupError(f"the docstring of Settings does not say how {name} is set")
        meaning = text.replace(f" {found[0]}", "").replace("; None", ". Unset").rstrip(".")
        rows.append([found[1], f"{meaning}."])
    return page(
        "Environment",
        "A deployment writes them into `etc/seedcore.env`; its `bin/seedcore` and `bin/activate` set them. "
        "An empty one counts as unset.\n",
        table(["variable", "meaning"], rows),
    )


def roles() -> str:
    """Return the page about the variables of every role."""
    parts = []
    for role in ROLES:
        directory = ROOT / "roles" / role
        if not directory.is_dir():
            continue
        specs = yaml.safe_load((directory / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        defaults = yaml.safe_load((directory / "defaults" / "main.yml").read_text())
        parts.append(f"## seedcore.cluster.{role}\n\n{prose(specs['main']['description'])}\n")
        others = [[f"`{name}`", prose([spec["short_description"]])] for name, spec in specs.items() if name != "main"]
        if others:
            parts.append(table(["entry point", "what it does"], others))
        rows = []
        for name, option in specs["main"]["options"].items():
            kind = ", ".join(map(code, option["choices"])) if "choices" in option else option["type"]
            default = "required" if option.get("required") else code(defaults[name])
            rows.append([f"`{name}`", kind, default, prose([option["description"]])])
        parts.append(table(["variable", "type", "default", "meaning"], rows))
    return page("Roles and their variables", *parts)


def modules() -> str:
    """Return the page about the options and results of every module."""
    parts = []
    for path in sorted((ROOT / "plugins" / "modules").glob("*.py")):
        texts = literals(path)
        documentation, returned = (yaml.safe_load(texts[name]) for name in ("DOCUMENTATION", "RETURN"))
        parts.append(
            f"## seedcore.cluster.{path.stem}\n\n{prose([documentation['short_description']])}.\n\n"
            f"{prose(documentation['description'])}\n"
        )
        rows = []
        for name, option in documentation["options"].items():
            default = "required" if option.get("required") else code(option["default"]) if "default" in option else ""
            rows.append([f"`{name}`", option["type"], default, prose(option["description"])])
        parts.append(table(["option", "type", "default", "meaning"], rows))
        results = [[f"`{name}`", entry["type"], prose(entry["description"])] for name, entry in returned.items()]
        parts.append(table(["result", "type", "meaning"], results))
        parts.append(f"```yaml\n{texts['EXAMPLES'].strip()}\n```\n")
    return page("Modules", *parts)


def http() -> str:
    """Return the page about the HTTP paths, their parameters and their bodies."""
    document = create_app(ExampleCoordinator(), token="unused, but it turns authentication on").openapi()  # noqa: S106
    parts = ["`/openapi.json` has the same for programs, `/docs` for people.\n"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"## {method.upper()} {path}\n\n{operation['summary']}.\n")
            rows = [[number, answer["description"], shape(answer)] for number, answer in operation["responses"].items()]
            parts.append(table(["status", "when", "body"], rows))
    for name, model in sorted(document["components"]["schemas"].items()):
        rows = [
            [f"`{key}`", kind(entry), one_line(entry.get("description", ""))]
            for key, entry in model.get("properties", {}).items()
        ]
        if rows:
            parts.append(f"## {name}\n\n{one_line(model.get('description', ''))}\n")
            parts.append(table(["key", "type", "meaning"], rows))
    return page("HTTP", *parts)


def metrics() -> str:
    """Return the page about the metrics of `GET /metrics`."""
    rows = []
    for metric in METRICS:
        labels = sorted([*metric.source.labels, *(["le"] if metric.type == "histogram" else [])])
        suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
        rows.append([f"`{metric.name}{suffix}`", metric.type, ", ".join(map(code, labels)), metric.help])
    return page(
        "Metrics",
        "`GET /metrics` of the Coordinator, in the format that Prometheus asks for; it wants the token. "
        "[Monitoring](../monitoring.md) says how they are collected, and where Ray's own are.\n",
        table(["metric", "type", "labels", "meaning"], rows),
    )


def page(title: str, *parts: str) -> str:
    """Return a page: the notice that it is generated, the title, and the parts."""
    return f"{HEAD}# {title}\n\n" + "\n".join(parts)


def table(heads: list[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([one_line(str(cell)) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def code(value: object) -> str:
    """Return a value in YAML notation, formatted as code."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    if "|" in text:
        # Inside backticks, some renderers end a table cell at a bar, and others show its escape character.
        return f"<code>{html.escape(one_line(text)).replace('|', '&#124;')}</code>"
    return f"`{one_line(text)}`"


def prose(text: str | list[str]) -> str:
    """Return a text in Ansible's documentation markup as Markdown."""
    joined = " ".join([text] if isinstance(text, str) else text)
    joined = re.sub(r"\b(?:[EMOV]|RV)\((?:\w+#)?([^)]*)\)", r"`\1`", joined)
    joined = re.sub(r"\bI\(([^)]*)\)", r"*\1*", joined)
    return one_line(re.sub(r"C\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", joined))


def one_line(text: str) -> str:
    """Return the text on one line."""
    return " ".join(text.split())


def literals(path: Path) -> dict[str, str]:
    """Return the string constants that a Python file assigns at module level, by name."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[ast.unparse(node.targets[0])] = node.value.value
    return found


def shape(answer: Mapping[str, Any]) -> str:
    """Return a description of a response's body."""
    content = answer.get("content", {})
    described = [kind(entry["schema"]) for entry in content.values() if entry.get("schema")]
    return ", ".join(described or map(code, content))


def kind(entry: Mapping[str, Any]) -> str:
    """Return a schema's type in words."""
    if "$ref" in entry:
        name = entry["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in entry:
        return " or ".join(kind(option) for option in entry["anyOf"])
    if "const" in entry or "enum" in entry:
        return ", ".join(code(value) for value in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "array":
        return f"list of {kind(entry.get('items', {}))}"
    return str(entry.get("type", "anything"))


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": command_line,
    "organism.md": organism,
    "organism.schema.json": schema,
    "environment.md": environment,
    "roles.md": roles,
    "modules.md": modules,
    "http.md": http,
    "metrics.md": metrics,
}


def with_reasons(text: str) -> str:
    """Return the page with the table of reasons, and a section for each reason that has none, between its marks."""
    head, tail = "by `make docs` -->\n", "<!-- end of reasons -->"
    before, _, rest = text.partition(head)
    _, _, after = rest.partition(tail)
    sections: list[str] = []
    rows = ["| reason | status | exit code | does waiting help? | what to do |", "|---|---|---|---|---|"]
    for reason in Reason:
        if reason in {Reason.UNKNOWN, Reason.CLOSED}:
            continue
        name = f"[{reason.value}](#{reason.value})"
        cells = (name, reason.status, str(int(reason.exit_code)), "no" if reason.terminal else "", reason.remedy)
        rows.append(f"| {' | '.join(cells)} |")
        if f"\n## {reason.value}\n" not in before + after:
            sections += ["", f"## {reason.value}", "", *textwrap.wrap(reason.remedy, 100)]
    return "".join((before, head, "\n", "\n".join([*rows, *sections]), "\n\n", tail, after))


def with_options(text: str) -> str:
    """Return the packaged organism.yaml with each key that its first organ does not use as a comment."""
    begin = "# The other keys, with their defaults (from seedcore/core/spec.py by `make docs`):\n"
    before, _, rest = text.partition(begin)
    indent = before.rpartition("\n")[2]
    first = OrganSpec(
        id="",
        type="",
        agent="",
        agent_count=yaml.safe_load(before)["seedcore"]["organism"]["organ_types"][0]["agent_count"],
    )
    lines = []
    for name, option in OrganSpec.described().items():
        if re.search(rf"^[ #-]*{name}:", before, re.MULTILINE):
            continue
        head = f"{indent}# {name}: {json.dumps(getattr(first, name))}"
        for line in textwrap.wrap(option.help.replace("``", ""), 120 - COMMENTS_AT):
            lines.append(f"{head.ljust(COMMENTS_AT)}# {line}\n")
            head = f"{indent}#"
    return "".join((before, begin, *lines, re.sub(r"\A( *#.*\n)*", "", rest)))


def attribute_docs(of: type) -> dict[str, str]:
    """Return the description of each attribute in a class's docstring, as one line of text.

    Raises:
        LookupError: The docstring lacks an attribute.
    """
    text = inspect.cleandoc(of.__doc__ or "").split("Attributes:\n", 1)[-1]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    docs = {name: " ".join(said.split()).replace("``", "`") for name, said in entries}
    missing = {field.name for field in dataclasses.fields(of)} - docs.keys()
    if missing:
        raise LookupError(f"the docstring of {of.__name__} does not say what {', '.join(sorted(missing))} is")
    return docs


PARTS: dict[Path, Callable[[str], str]] = {STATUS_PAGE: with_reasons, PACKAGED_CONFIG: with_options}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
