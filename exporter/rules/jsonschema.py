"""The JSON Schema of rule files, for completion and checks in editors: docs/schema/rules.schema.json.

Made from the keys that the reader knows. Expressions, templates and label names are checked by
`check rules`.
"""

from __future__ import annotations

from typing import Any

from exporter.rules.format import ALERT_ONLY_KEYS, GROUP_KEYS, RULE_KEYS
from exporter.rules.model import MissingData

Schema = dict[str, Any]

_TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
_TEXTS: Schema = {"type": ["object", "null"], "additionalProperties": _TEXT}
_DURATION: Schema = {
    "anyOf": [
        {
            "type": "string",
            "pattern": "^(?:0|(?:[0-9]+y)?(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?"
            "(?:[0-9]+ms)?)$",
            "minLength": 1,
        },
        {"const": 0},
        {"type": "null"},
    ]
}
_EXPRESSION: Schema = {"type": ["string", "number"]}

_TYPES: dict[str, tuple[Schema, str]] = {
    "name": (_TEXT, "name of the group, unique in the file"),
    "interval": (_DURATION, "time between two evaluations; default: global.evaluation_interval"),
    "limit": ({"type": ["integer", "null"]}, "most alerts or series of one rule; 0 for none"),
    "query_offset": (_DURATION, "how long before the time of evaluation expressions are evaluated"),
    "record": (_TEXT, "name of the series that a recording rule writes"),
    "alert": (_TEXT, "name of the alert"),
    "expr": (_EXPRESSION, "PromQL; an alert is each series that it returns"),
    "labels": (_TEXTS, "labels added; templates in those of alerts"),
    "for": (_DURATION, "how long the condition holds before an instance fires"),
    "keep_firing_for": (_DURATION, "how long an instance fires on once the condition is over"),
    "annotations": (_TEXTS, "texts of the alert, templates"),
    "cooldown": (_DURATION, "no second firing notification of an instance within this time"),
    "cooldown_by": (
        {"type": ["array", "null"], "items": _TEXT},
        "labels whose values share a cooldown; [] shares it in the whole rule",
    ),
    "missing_data": (
        {"enum": [*(policy.value for policy in MissingData), None]},
        "what becomes of an instance whose input has vanished",
    ),
    "keep_firing_expr": (
        {"type": ["string", "number", "null"]},
        "an instance that fires goes on while this returns its labels",
    ),
}


def rules_schema() -> Schema:
    """The schema of a rule file."""
    rule: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["expr"],
        "properties": {key: _typed(key) for key in RULE_KEYS},
        "oneOf": [
            {"required": ["alert"]},
            {"required": ["record"], "properties": {key: {"type": "null"} for key in ALERT_ONLY_KEYS}},
        ],
    }
    group: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            key: _typed(key)
            if key != "rules"
            else {"type": ["array", "null"], "items": {"$ref": "#/definitions/rule"}}
            for key in GROUP_KEYS
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Rule files of quantum-exporter",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "groups": {"type": ["array", "null"], "items": {"$ref": "#/definitions/group"}},
        },
        "definitions": {"group": group, "rule": rule},
    }


def _typed(key: str) -> Schema:
    shape, meaning = _TYPES[key]
    return {**shape, "description": meaning}
