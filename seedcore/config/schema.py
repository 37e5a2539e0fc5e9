"""The JSON schema of organism.yaml, for editors and the reference, generated from the models of the loader.

A schema cannot express relations between values (duplicate ids, more replicas than agents) and imports no agents;
``seedcore config check`` checks these as well.
"""

from __future__ import annotations

from typing import Any

from seedcore.config.organism_file import DEFAULTS, OrganismFile
from seedcore.core.schedule import schema as schedule_schema
from seedcore.core.spec import OrganSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema as plain data; each key has its description, allowed values and default."""
    schema = OrganismFile.model_json_schema()
    organ = schema["$defs"].pop("_Organ")
    schema["$defs"]["organ"] = {**organ, "description": "One organ."}
    organism = schema["$defs"].pop("_Organism")
    organism["properties"]["organ_types"]["items"] = {"$ref": "#/$defs/organ"}
    organism["properties"]["schedules"]["items"] = {"$ref": "#/$defs/schedule"}
    schema["$defs"]["schedule"] = schedule_schema()
    schema["properties"]["seedcore"] = schema["$defs"].pop("_Seedcore")
    schema["properties"]["seedcore"]["properties"]["organism"] = organism
    known = OrganSpec.described()
    for name, entry in organ["properties"].items():
        meaning = known[name].help.replace("``", "`")
        entry["description"] = f"{meaning} Allowed: {entry['description']}."
        if entry.pop("default", DEFAULTS) is None and name != "min_ready_agents":
            entry["default"] = DEFAULTS[name]
        if "patternProperties" in entry:
            entry["additionalProperties"] = False
    del schema["description"]
    return {
        "$schema": DIALECT,
        "title": "organism.yaml",
        "description": "The organs of an organism.",
        **_adapt(schema),
    }


def _adapt(node: Any) -> Any:
    """Remove parts that some tools do not support: class names, and anchors for begin and end in patterns."""
    if isinstance(node, str):
        return node.replace(r"\A", "^").replace(r"\z", r"(?![\s\S])")
    if isinstance(node, list):
        return [_adapt(item) for item in node]
    if isinstance(node, dict):
        named = {key: item for key, item in node.items() if key != "title" or not isinstance(item, str)}
        return {_adapt(key): _adapt(item) for key, item in named.items()}
    return node
