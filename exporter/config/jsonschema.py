"""The JSON Schema of the configuration, for completion and checks in editors: docs/schema/config.schema.json.

Made from the options of the schema and the keys that the readers know, so that it cannot fall behind them.
`${VAR}` may stand for any scalar. Shape, keys and words are checked here; references when the program starts.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any

from exporter.config import receivers, time_intervals
from exporter.config.http_client import HTTP_CLIENT_KEYS
from exporter.config.load import TOP_KEYS
from exporter.config.providers import BUILTIN_KEYS
from exporter.config.reference import SECTIONS
from exporter.model.durations import format_duration
from exporter.providers import builtin_providers
from exporter.providers.declare import ENDPOINT_KEYS, PROVIDER_KEYS
from exporter.providers.spec import WINDOWS_S

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
DURATION_PATTERN = (
    r"^(?:0|(?:[0-9]+y)?(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?(?:[0-9]+ms)?)$"
)
TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
DURATION: Schema = {
    "anyOf": [{"type": "string", "pattern": DURATION_PATTERN, "minLength": 1}, {"const": 0}, _VARIABLE]
}
WHOLE: Schema = {"anyOf": [{"type": "integer"}, _VARIABLE]}
SWITCH: Schema = {"anyOf": [{"type": "boolean"}, _VARIABLE]}
TEXTS: Schema = {"type": ["array", "null"], "items": TEXT}
TEXT_MAP: Schema = {"type": ["object", "null"], "additionalProperties": TEXT}


def objects(keys: Collection[str], types: Mapping[str, Schema], required: Collection[str] = ()) -> Schema:
    """A mapping that knows exactly these keys; a key without a type of its own takes anything."""
    found: Schema = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {key: types.get(key, {}) for key in keys},
    }
    if required:
        found["type"] = "object"
        found["required"] = list(required)
    return found


def lists(item: Schema) -> Schema:
    """A list; null is an empty one."""
    return {"type": ["array", "null"], "items": item}


def words(*allowed: str) -> Schema:
    """One of a few words."""
    return {"anyOf": [{"enum": list(allowed)}, _VARIABLE]}


def config_schema() -> Schema:
    """The schema of a configuration file."""
    sections = {name: _section(schema) for name, schema in SECTIONS if "." not in name}
    provider = dict(SECTIONS)["collect.providers.NAME"]
    sections["collect"]["properties"]["providers"] = _providers(_options(provider))
    sections["global"]["properties"]["external_labels"] = TEXT_MAP
    collectors = sections["collect"]["properties"]
    for name in ("system", "postgres"):
        collectors[name] = {
            **_described(collectors[name]),
            "anyOf": [SWITCH, {"type": "null"}, {"type": "object", "maxProperties": 0}],
        }
    known = {**sections, **_notification(), "rule_files": TEXTS, "alerting": _alerting()}
    return {
        "$schema": DIALECT,
        "title": "Configuration of quantum-exporter",
        "definitions": {"route": _route()},
        **objects(TOP_KEYS, known),
    }


# -- options that are declared ------------------------------------------------------------------------


def _section(schema: type[Any]) -> Schema:
    options = _options(schema)
    return objects(list(options), options)


def _options(schema: type[Any]) -> dict[str, Schema]:
    hints = typing.get_type_hints(schema)
    found = {}
    for field in dataclasses.fields(schema):
        if "help" not in field.metadata:
            continue
        unit = field.metadata["unit"]
        key = field.name.removesuffix("_ms") if unit == "duration" else field.name
        shape: Schema = {**_typed(hints[field.name], unit)}
        shape["description"] = field.metadata["help"] + (f" ({unit})" if unit not in ("", "duration") else "")
        default = field.default
        if unit == "duration" and isinstance(default, int):
            shape["default"] = format_duration(default)
        elif isinstance(default, (bool, int, str)):
            shape["default"] = default
        found[key] = shape
    return found


def _typed(hint: Any, unit: str) -> Schema:
    if unit == "duration":
        return DURATION
    if hint is bool:
        return SWITCH
    if hint is int:
        return WHOLE
    if typing.get_origin(hint) is tuple:
        return TEXTS if typing.get_args(hint)[0] is str else {}
    return {} if typing.get_origin(hint) not in (None, typing.Union) and not _is_text(hint) else TEXT


def _is_text(hint: Any) -> bool:
    return all(part is type(None) or isinstance(part, type) for part in typing.get_args(hint)) and not (
        isinstance(typing.get_origin(hint), type) and issubclass(typing.get_origin(hint), Mapping)
    )


def _described(shape: Schema) -> Schema:
    return {key: shape[key] for key in ("description", "default") if key in shape}


# -- providers ----------------------------------------------------------------------------------------


def _providers(options: Mapping[str, Schema]) -> Schema:
    limit = {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            _VARIABLE,
            objects(
                ("ceiling", "safe", "plan", "keyed_only"),
                {"ceiling": WHOLE, "safe": WHOLE, "plan": SWITCH, "keyed_only": SWITCH},
            ),
        ]
    }
    types: dict[str, Schema] = {
        **options,
        "plan": TEXT,
        "base_url": TEXT,
        "limits": objects(list(WINDOWS_S), dict.fromkeys(WINDOWS_S, limit)),
        "assets": TEXT_MAP,
        "endpoints": {"type": "object", "additionalProperties": _endpoint()},
    }
    settings = list(dict.fromkeys((*BUILTIN_KEYS, *PROVIDER_KEYS)))
    declared = objects(settings, types, ("base_url", "endpoints"))
    builtin = objects(BUILTIN_KEYS, types)
    return {
        "type": ["object", "null"],
        "description": "upstream APIs, by name",
        "properties": dict.fromkeys(sorted(builtin_providers()), builtin),
        "additionalProperties": declared,
    }


def _endpoint() -> Schema:
    switches = dict.fromkeys(("poll", "key_info", "needs_key"), SWITCH)
    types = {"path": TEXT, "base_url": TEXT, "method": words("GET", "POST"), "ttl": DURATION}
    return objects(ENDPOINT_KEYS, {**types, **switches}, ("path",))


# -- notification -------------------------------------------------------------------------------------


def _http(keys: Collection[str]) -> Schema:
    tls = ("ca_file", "cert_file", "key_file", "server_name")
    types = {
        "authorization": objects(*_texts("type", "credentials", "credentials_file")),
        "basic_auth": objects(*_texts("username", "password", "password_file")),
        "tls_config": objects(
            (*tls, "insecure_skip_verify"), {**dict.fromkeys(tls, TEXT), "insecure_skip_verify": SWITCH}
        ),
        "follow_redirects": SWITCH,
        "proxy_url": TEXT,
        "http_headers": {"type": ["object", "null"]},
    }
    return objects(keys, types)


def _texts(*keys: str) -> tuple[tuple[str, ...], dict[str, Schema]]:
    return keys, dict.fromkeys(keys, TEXT)


def _route() -> Schema:
    times = ("group_wait", "group_interval", "repeat_interval", "cooldown")
    flapping = {"transitions": WHOLE, "window": DURATION, "hold": SWITCH}
    types: dict[str, Schema] = {
        "receiver": TEXT,
        "group_by": TEXTS,
        "continue": SWITCH,
        "match": TEXT_MAP,
        "match_re": TEXT_MAP,
        "matchers": TEXTS,
        "mute_time_intervals": TEXTS,
        "active_time_intervals": TEXTS,
        "flapping": objects(tuple(flapping), flapping),
        "routes": lists({"$ref": "#/definitions/route"}),
        **dict.fromkeys(times, DURATION),
    }
    return objects(receivers.ROUTE_KEYS, types)


def _notification() -> dict[str, Schema]:
    common: dict[str, Schema] = {
        "send_resolved": SWITCH,
        "title": TEXT,
        "text": TEXT,
        "timeout": DURATION,
        "url": TEXT,
        "url_file": TEXT,
        "urls": TEXTS,
        "urls_file": TEXT,
        "max_alerts": WHOLE,
        "format": words("text", "markdown", "html"),
        "http_config": _http(HTTP_CLIENT_KEYS),
    }
    integrations = {
        "log_configs": receivers.LOG_KEYS,
        "webhook_configs": receivers.WEBHOOK_KEYS,
        "apprise_configs": receivers.APPRISE_KEYS,
    }
    receiver: dict[str, Schema] = {
        "name": TEXT,
        "fallback": TEXT,
        "fallback_after": WHOLE,
        **{key: lists(objects(keys, common)) for key, keys in integrations.items()},
    }
    inhibit = {key: TEXT_MAP for key in receivers.INHIBIT_KEYS if key.endswith(("match", "match_re"))}
    inhibit |= dict.fromkeys(("target_matchers", "source_matchers", "equal"), TEXTS)
    spans = dict.fromkeys(("weekdays", "days_of_month", "months", "years"), TEXTS)
    clock = objects(*_texts("start_time", "end_time"))
    spec = objects(time_intervals.SPEC_KEYS, {**spans, "times": lists(clock), "location": TEXT})
    named = objects(("name", "time_intervals"), {"name": TEXT, "time_intervals": lists(spec)}, ("name",))
    return {
        "route": {"$ref": "#/definitions/route"},
        "receivers": lists(objects(receivers.RECEIVER_KEYS, receiver, ("name",))),
        "inhibit_rules": lists(objects(receivers.INHIBIT_KEYS, {**inhibit, "name": TEXT})),
        "time_intervals": lists(named),
        "mute_time_intervals": lists(named),
    }


def _alerting() -> Schema:
    http = _http(receivers.ALERTMANAGER_HTTP_KEYS)["properties"]
    types: dict[str, Schema] = {
        "static_configs": lists(objects(("targets",), {"targets": TEXTS})),
        "scheme": words("http", "https"),
        "path_prefix": TEXT,
        "timeout": DURATION,
        "api_version": words("v2"),
        **http,
    }
    manager = objects(tuple(types), types, ("static_configs",))
    return objects(("alertmanagers",), {"alertmanagers": lists(manager)})
