"""The JSON schema of a spec file, for editors that complete and underline; generated from the loader's own tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cellspec.language.keys import (
    ACTIVATIONS,
    CITE_KEYS,
    EXPECT_KEYS,
    KEYS,
    NUMBERED_INITIALISERS,
    PLAIN_INITIALISERS,
    RECURRENCES,
    VARIABLE_KEYS,
)

Schema = dict[str, Any]

PATH = Path(__file__).parents[1] / "cell.schema.json"

_NUMBER: Schema = {"type": ["number", "string"], "pattern": r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"}
_TEXT: Schema = {"type": ["string", "number"]}
_NAME = r"^[^\W\d]\w*$"
_BRACED = r"^[^\W\d{}]?[\w{},\s]*$"
_REF = "#/$defs/"


def build_schema() -> Schema:
    """The schema of a whole spec (JSON Schema, draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cellspec cell",
        "description": "One recurrent cell: its equations, shapes and defaults.",
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "anyOf": [{"required": ["extends"]}, {"required": ["inputs", "states", "equations"]}],
        "properties": {key: {"description": text, **_part(key)} for key, text in KEYS.items()},
        "$defs": {
            "dim": {"type": ["string", "integer"], "description": "A dim expression: H, 2*H, H+I, 1.", "minimum": 1},
            "shape": {
                "description": "A dim expression, or a list of them; [H, I] is a matrix used as W @ v.",
                "oneOf": [{"$ref": f"{_REF}dim"}, {"type": "array", "items": {"$ref": f"{_REF}dim"}, "minItems": 1}],
            },
            "initialiser": _initialiser(),
            "cite": {
                "type": "object",
                "additionalProperties": False,
                "properties": {key: _TEXT for key in CITE_KEYS},
            },
            **{kind.split()[-1]: _variable(kind) for kind in VARIABLE_KEYS},
        },
    }


def _part(key: str) -> Schema:
    """What may stand under a top-level key."""
    match key:
        case "name" | "extends":
            return {"type": "string", "pattern": _NAME}
        case "title" | "doc" | "equations":
            return {"type": "string"}
        case "cite":
            cite = {"$ref": f"{_REF}cite"}
            return {"oneOf": [cite, {"type": "array", "items": cite}]}
        case "remove":
            return {"type": "array", "items": {"type": "string", "pattern": _BRACED}, "uniqueItems": True}
        case "dims" | "outputs":
            return {"type": "array", "items": {"type": "string", "pattern": _NAME}, "uniqueItems": True}
        case "hyper":
            return _names(_NUMBER)
        case "activations":
            return _names({"enum": sorted(ACTIVATIONS)})
        case "functions":
            return _names(_TEXT, r"^\s*[^\W\d]\w*\s*\(.*\)\s*$")
        case "inputs":
            return _names({"$ref": f"{_REF}input"}, _BRACED)
        case "states":
            return _names({"$ref": f"{_REF}state"}, _BRACED)
        case "params":
            return _names({"$ref": f"{_REF}param"}, _BRACED)
        case "expect":
            return _expect()
        case _:
            raise ValueError(f"the schema does not know the key {key!r}")


def _names(value: Schema, pattern: str = _NAME) -> Schema:
    """A mapping from declared names to ``value``."""
    return {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": value}


def _variable(kind: str) -> Schema:
    """An input, a state or a param: its shape, or a mapping."""
    init = {"a state": {"description": "The number that the state starts from.", **_NUMBER_OR_INFINITE}}
    parts: Schema = {
        "shape": {"$ref": f"{_REF}shape"},
        "init": init.get(kind, {"$ref": f"{_REF}initialiser"}),
        "trainable": {"type": "boolean", "default": True},
        "repeat": {"type": ["string", "integer"], "minimum": 1, "description": "The length of a family R[0], R[1], …"},
    }
    mapping: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["shape"],
        "properties": {key: parts[key] for key in VARIABLE_KEYS[kind]},
    }
    return {"anyOf": [{"$ref": f"{_REF}shape"}, mapping]}


_NUMBER_OR_INFINITE: Schema = {"anyOf": [_NUMBER, {"enum": ["zeros", "ones", "-.inf", ".inf"]}]}


def _initialiser() -> Schema:
    """How a parameter starts."""
    pair: Schema = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
    numbered = [
        {
            "type": "object",
            "additionalProperties": False,
            "required": [name],
            "properties": {name: {"description": text, **(pair if name == "uniform" else _NUMBER)}},
        }
        for name, text in NUMBERED_INITIALISERS.items()
    ]
    return {
        "description": "How a parameter starts; default: glorot_uniform for matrices, zeros for vectors.",
        "anyOf": [{"enum": list(PLAIN_INITIALISERS)}, _NUMBER, *numbered],
    }


def _expect() -> Schema:
    """The claims that ``cellspec check`` verifies."""
    parts: Schema = {
        "params": {
            "type": ["string", "integer"],
            "description": "The trainable parameters, a formula over the dims.",
        },
        "stages": {"type": "integer", "minimum": 0, "description": "Dependent recurrent matrix products within a step."},
        "recurrence": {"enum": list(RECURRENCES), "description": "The path from state to state."},
        "bound": {
            **_names({"type": "number", "minimum": 0}),
            "description": "The largest absolute value of a state or output.",
        },
    }
    return {"type": "object", "additionalProperties": False, "properties": {key: parts[key] for key in EXPECT_KEYS}}


def schema_text() -> str:
    """The text of the committed file."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
