"""The JSON schema of organism.yaml, for editors and for the reference: made of the models that the loader checks with.

A schema knows no relations between values (an id given twice, more replicas than agents) and imports no agents:
``seedcore config check`` has the last word.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from seedcore.config import DEFAULTS, OrganismFile
from seedcore.spec import OrganSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema as plain data; each key has its description, what is allowed, and its default."""
    schema = OrganismFile.model_json_schema()
    organ = schema["$defs"].pop("_Organ")
    schema["$defs"]["organ"] = {**organ, "description": "One organ."}
    organism = schema["$defs"].pop("_Organism")
    organism["properties"]["organ_types"]["items"] = {"$ref": "#/$defs/organ"}
    schema["properties"]["seedcore"] = schema["$defs"].pop("_Seedcore")
    schema["properties"]["seedcore"]["properties"]["organism"] = organism
    meanings = attribute_docs(OrganSpec)
    for name, entry in organ["properties"].items():
        entry["description"] = f"{meanings[name]} Allowed: {entry['description']}."
        if entry.pop("default", DEFAULTS) is None and name != "min_ready_agents":
            entry["default"] = _plain(DEFAULTS[name])
        if "patternProperties" in entry:
            entry["additionalProperties"] = False
    del schema["description"]
    return {
        "$schema": DIALECT,
        "title": "organism.yaml",
        "description": "What organs an organism has.",
        **_adapt(schema),
    }


def attribute_docs(of: type) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute, as one line of text."""
    text = inspect.cleandoc(of.__doc__ or "").split("Attributes:\n", 1)[-1]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    docs = {name: " ".join(said.split()).replace("``", "`") for name, said in entries}
    missing = {field.name for field in dataclasses.fields(of)} - docs.keys()
    if missing:
        raise LookupError(f"the docstring of {of.__name__} does not say what {', '.join(sorted(missing))} is")
    return docs


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _adapt(node: Any) -> Any:
    """Take out what not every tool knows: names of classes, and marks for begin and end in patterns."""
    if isinstance(node, str):
        return node.replace(r"\A", "^").replace(r"\z", r"(?![\s\S])")
    if isinstance(node, list):
        return [_adapt(item) for item in node]
    if isinstance(node, dict):
        named = {key: item for key, item in node.items() if key != "title" or not isinstance(item, str)}
        return {_adapt(key): _adapt(item) for key, item in named.items()}
    return node
