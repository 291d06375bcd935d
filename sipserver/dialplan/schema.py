"""The JSON Schema of a dialplan file, made from the models, so that editors complete and check what people type.

It says what the file may hold; what only `check` can see (names that exist, files, loops) it leaves to `check`.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from sipserver.dialplan.plan import PlanFile
from sipserver.dialplan.steps import STEPS, Collect, Secure, SetStep, Step

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """A new JSON Schema (draft 2020-12) object of the whole file."""
    references, shared = models_json_schema(
        [(PlanFile, "validation"), *((step, "validation") for step in STEPS.values())], by_alias=True
    )
    definitions: dict[str, Any] = shared["$defs"]
    for step in STEPS.values():
        name = references[(step, "validation")]["$ref"].rpartition("/")[2]
        definitions[name] = _options(step, definitions[name])
        definitions[f"step_{step.word}"] = _step(step, definitions[name], f"#/$defs/{name}")
    definitions["step"] = {"oneOf": [{"$ref": f"#/$defs/step_{word}"} for word in STEPS]}
    file = definitions.pop(references[(PlanFile, "validation")]["$ref"].rpartition("/")[2])
    file["properties"]["flows"]["additionalProperties"]["items"] = {"$ref": "#/$defs/step"}
    return {"$schema": DIALECT, **file, "title": "sipserver dialplan", "$defs": definitions}


def _options(step: type[Step], written: dict[str, Any]) -> dict[str, Any]:
    """The options of a step as people write them: `on` with its outcomes, `set` as a plain mapping."""
    if step is SetStep:
        return {**written["properties"]["values"], "description": written.get("description", "")}
    target = written["properties"]["on"]["additionalProperties"]
    properties = {key: value for key, value in written["properties"].items() if key != "on"}
    required = [key for key in written.get("required", ()) if key != "on"]
    if step is Secure:
        properties["do"] = {**properties["do"], "items": {"$ref": "#/$defs/step"}}
    if step.outcomes:
        branches: dict[str, Any] = {
            "type": "object",
            "description": "Where to go on: outcome -> flow, `next` or `end`",
            "properties": dict.fromkeys(step.outcomes, target),
            "additionalProperties": False,
        }
        if step is Collect:
            branches["patternProperties"] = {"^[0-9A-D*#]+$": target}
        if step.required:
            branches["required"] = sorted(step.required)
            required.append("on")
        properties["on"] = branches
    return {**written, "properties": properties, "required": required}


def _step(step: type[Step], options: dict[str, Any], reference: str) -> dict[str, Any]:
    """A step: a mapping with its word, or the word alone where nothing must be said."""
    about = " ".join((step.__doc__ or "").split())
    forms: list[dict[str, Any]] = [{"$ref": reference}]
    bare = _bare(step)
    if step.short and set(options.get("required", ())) <= {step.short}:
        forms.append(options["properties"][step.short])
    if bare:
        forms.append({"type": "null"})
    mapping = {
        "type": "object",
        "description": about,
        "properties": {step.word: forms[0] if len(forms) == 1 else {"anyOf": forms}},
        "required": [step.word],
        "additionalProperties": False,
    }
    return {"anyOf": [mapping, {"const": step.word, "description": about}]} if bare else mapping


def _bare(step: type[Step]) -> bool:
    try:
        step.model_validate(None)
    except ValidationError:
        return False
    return True
