"""How a panel shows a value: unit, thresholds, value mappings, overrides by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from exporter.drawing.ink import Ink
from exporter.drawing.units import value_text

_INKS: Final = {
    "green": Ink.GREEN,
    "yellow": Ink.YELLOW,
    "orange": Ink.ORANGE,
    "red": Ink.RED,
    "blue": Ink.BLUE,
}


@dataclass(frozen=True, slots=True)
class Field:
    """Grafana's field options, as far as they are drawn. `steps` ascend; the first has no lower end."""

    unit: str = "short"
    decimals: int | None = None
    lowest: float | None = None
    highest: float | None = None
    steps: tuple[tuple[float, Ink], ...] = ()
    texts: Mapping[str, tuple[str, Ink | None]] = field(default_factory=dict)
    no_value: str = ""
    hidden: bool = False
    fixed: Ink | None = None

    def ink(self, value: float) -> Ink:
        """The colour of the step that a value has reached."""
        mapped = self.mapped_ink(value)
        if mapped is not None:
            return mapped
        reached = [ink for least, ink in self.steps if value >= least]
        return reached[-1] if reached else Ink.GREEN

    def mapped_ink(self, value: float) -> Ink | None:
        """The colour that a value mapping gives to exactly this value."""
        mapped = self.texts.get(_key(value))
        return mapped[1] if mapped is not None else None

    def text(self, value: float) -> str:
        """The value in words."""
        mapped = self.texts.get(_key(value))
        return mapped[0] if mapped is not None and mapped[0] else value_text(value, self.unit, self.decimals)


def ink_named(name: str) -> Ink:
    """The ink of one of Grafana's colour names; `dark-` and `light-` are shades."""
    if name == "dark-red":
        return Ink.DARK_RED
    return _INKS.get(name.rpartition("-")[2], Ink.GREY)


def field_of(panel: Mapping[str, Any]) -> Field:
    """What a panel's defaults say."""
    config = panel.get("fieldConfig") or {}
    return _with(Field(), config.get("defaults") or {})


def override(panel: Mapping[str, Any], name: str) -> Field:
    """The field of one column or series, with the overrides of its name."""
    found = field_of(panel)
    for one in (panel.get("fieldConfig") or {}).get("overrides") or ():
        matcher = one.get("matcher") or {}
        if matcher.get("id") == "byName" and matcher.get("options") == name:
            found = _with(found, {item["id"]: item.get("value") for item in one.get("properties") or ()})
    return found


def _with(base: Field, options: Mapping[str, Any]) -> Field:
    steps = (options.get("thresholds") or {}).get("steps") or ()
    given: dict[str, Any] = {
        "unit": options.get("unit"),
        "decimals": options.get("decimals"),
        "lowest": options.get("min"),
        "highest": options.get("max"),
        "steps": _steps(steps) or None,
        "texts": _texts(options.get("mappings") or ()) or None,
        "no_value": options.get("noValue"),
        "hidden": options.get("custom.hidden"),
        "fixed": _fixed(options.get("color") or {}),
    }
    return replace(base, **{key: value for key, value in given.items() if value is not None})


def _fixed(color: Mapping[str, Any]) -> Ink | None:
    return (
        ink_named(str(color["fixedColor"]))
        if color.get("mode") == "fixed" and color.get("fixedColor")
        else None
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, Ink], ...]:
    return tuple(
        (-math.inf if step.get("value") is None else float(step["value"]), ink_named(str(step.get("color"))))
        for step in steps
    )


def _texts(mappings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, Ink | None]]:
    """Exact values only: ranges and regular expressions are left as they are."""
    return {
        str(value): (str(to.get("text") or ""), ink_named(to["color"]) if to.get("color") else None)
        for mapping in mappings
        if mapping.get("type") == "value"
        for value, to in (mapping.get("options") or {}).items()
    }


def _key(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
