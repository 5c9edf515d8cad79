"""What several processes counted, as one: sums over those that live and those that have ended.

Pure: times are arguments. Counts of an ended process stay in `Totals`, its gauges go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, TypeAlias

Row: TypeAlias = tuple[str, ...]
"""Label values, in the order of the definition's label names."""

COUNTING: Final = frozenset({"counter", "histogram", "summary"})


@dataclass(frozen=True, slots=True)
class Definition:
    """An instrument as one process declared it. Two that differ in `help` or `unit` alone are the same.

    `bounds` are a histogram's, as text; `mode` is a gauge's multiprocess_mode without `live`.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    mode: str = ""
    help: str = field(default="", compare=False)
    unit: str = field(default="", compare=False)

    @property
    def width(self) -> int:
        """Numbers of one row: a histogram's buckets and sum, a summary's count and sum, else the value."""
        if self.kind == "histogram":
            return len(self.bounds) + 1
        # the second number of a gauge of this mode is the Unix time at which it was set
        return 2 if self.kind == "summary" or self.mode == "mostrecent" else 1


@dataclass(slots=True)
class Part:
    """What one process holds. `retired` rows were removed there, at the Unix time beside their numbers."""

    pid: int
    begun_s: float
    live: dict[Definition, dict[Row, list[float]]] = field(default_factory=dict)
    retired: dict[Definition, dict[Row, tuple[list[float], float]]] = field(default_factory=dict)


@dataclass(slots=True)
class Totals:
    """What ended processes counted, with the time of the last one; `folded` names those that are in it."""

    rows: dict[Definition, dict[Row, tuple[list[float], float]]] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    ended: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Merged:
    """One family over all processes: label values and numbers of each row."""

    definition: Definition
    rows: Sequence[tuple[Row, Sequence[float]]]


def fold(totals: Totals, part: Part, name: str, ended_s: float) -> Totals:
    """The totals with what an ended process counted; unchanged where it is in them already."""
    if name in totals.folded:
        return totals
    rows = {definition: dict(own) for definition, own in totals.rows.items()}
    for definition, found in part.live.items():
        _add(rows, definition, ((row, numbers, ended_s) for row, numbers in found.items()))
    for definition, retired in part.retired.items():
        _add(rows, definition, ((row, numbers, last_s) for row, (numbers, last_s) in retired.items()))
    return replace(totals, rows=rows, folded=(*totals.folded, name), ended=totals.ended + 1)


def _add(
    rows: dict[Definition, dict[Row, tuple[list[float], float]]],
    definition: Definition,
    found: Iterable[tuple[Row, Sequence[float], float]],
) -> None:
    if definition.kind not in COUNTING:
        return
    own = rows.setdefault(definition, {})
    for row, numbers, last_s in found:
        known, before_s = own.get(row, ([0.0] * len(numbers), last_s))
        own[row] = ([a + b for a, b in zip(known, numbers, strict=True)], max(before_s, last_s))


def expire(totals: Totals, parts: Sequence[Part], now_s: float, keep_s: float) -> Totals:
    """The totals without rows that no process holds and that were last used over `keep_s` ago."""
    kept: dict[Definition, dict[Row, tuple[list[float], float]]] = {}
    dropped = 0
    for definition, own in totals.rows.items():
        held = {row for part in parts for row in part.live.get(definition, ())}
        rest = {
            row: entry for row, entry in own.items() if row in held or _last(row, definition, entry[1], parts)
            >= now_s - keep_s
        }  # fmt: skip
        dropped += len(own) - len(rest)
        if rest:
            kept[definition] = rest
    if not dropped:
        return totals
    return replace(totals, rows=kept, expired=totals.expired + dropped)


def _last(row: Row, definition: Definition, last_s: float, parts: Sequence[Part]) -> float:
    """When a row was last used, in processes that have ended or that have removed it."""
    for part in parts:
        entry = part.retired.get(definition, {}).get(row)
        if entry is not None:
            last_s = max(last_s, entry[1])
    return last_s


def merge(parts: Sequence[Part], totals: Totals, now_s: float, keep_s: float) -> tuple[list[Merged], int]:
    """Every family over all processes, by name; and how many definitions were left out.

    Where processes declare a name in different ways (two versions of an app side by side), the process that
    began last is followed.
    """
    chosen: dict[str, Definition] = {}
    for definition, _ in sorted(
        ((definition, max(last_s for _, last_s in own.values())) for definition, own in totals.rows.items()),
        key=lambda item: item[1],
    ):
        chosen[definition.name] = definition
    every = set(totals.rows)
    ordered = sorted(parts, key=lambda part: part.begun_s)
    # what a process holds decides over what it has removed
    for found in ([list(part.retired) for part in ordered], [list(part.live) for part in ordered]):
        for definition in chain.from_iterable(found):
            chosen[definition.name] = definition
            every.add(definition)
    merged = [_family(chosen[name], parts, totals, now_s - keep_s) for name in sorted(chosen)]
    return merged, len(every) - len(chosen)


def _family(definition: Definition, parts: Sequence[Part], totals: Totals, since_s: float) -> Merged:
    if definition.kind not in COUNTING:
        return Merged(definition, _gauge(definition, parts))
    sums: dict[Row, list[float]] = {}
    last: dict[Row, float] = {}
    for part in parts:
        for row, numbers in part.live.get(definition, {}).items():
            _sum(sums, row, numbers)
            last[row] = since_s
    for part in parts:
        for row, (numbers, last_s) in part.retired.get(definition, {}).items():
            _sum(sums, row, numbers)
            last[row] = max(last.get(row, last_s), last_s)
    for row, (numbers, last_s) in totals.rows.get(definition, {}).items():
        _sum(sums, row, numbers)
        last[row] = max(last.get(row, last_s), last_s)
    return Merged(definition, [(row, numbers) for row, numbers in sums.items() if last[row] >= since_s])


def _sum(sums: dict[Row, list[float]], row: Row, numbers: Sequence[float]) -> None:
    known = sums.get(row)
    sums[row] = list(numbers) if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


def _gauge(definition: Definition, parts: Sequence[Part]) -> list[tuple[Row, Sequence[float]]]:
    found: dict[Row, list[tuple[int, list[float]]]] = {}
    for part in parts:
        for row, numbers in part.live.get(definition, {}).items():
            found.setdefault(row, []).append((part.pid, numbers))
    if definition.mode == "all":
        return [
            ((*row, str(pid)), numbers[:1])
            for row, every in found.items()
            for pid, numbers in dict(every).items()
        ]
    return [(row, [_one(definition.mode, [own for _, own in every])]) for row, every in found.items()]


def _one(mode: str, numbers: Sequence[Sequence[float]]) -> float:
    if mode == "mostrecent":
        return max(numbers, key=lambda own: own[1])[0]
    values = [own[0] for own in numbers]
    return min(values) if mode == "min" else max(values) if mode == "max" else sum(values)


def to_json(totals: Totals) -> Mapping[str, object]:
    """The totals as a JSON document."""
    return {
        "version": 1,
        "folded": totals.folded,
        "ended": totals.ended,
        "expired": totals.expired,
        "families": [
            {
                "definition": definition_to_json(definition),
                "rows": [[row, numbers, last_s] for row, (numbers, last_s) in own.items()],
            }
            for definition, own in totals.rows.items()
        ],
    }


def from_json(document: Mapping[str, object]) -> Totals:
    """The totals of a document. Raises: ValueError, KeyError or TypeError where it is none."""
    if document["version"] != 1:
        raise ValueError(f"version {document['version']} of the totals is not known")
    families: list[dict[str, object]] = list(document["families"])  # type: ignore[call-overload]
    rows: dict[Definition, dict[Row, tuple[list[float], float]]] = {}
    for family in families:
        definition = definition_from_json(family["definition"])  # type: ignore[arg-type]
        own: dict[Row, tuple[list[float], float]] = {}
        for row, numbers, last_s in family["rows"]:  # type: ignore[attr-defined]
            if len(row) != len(definition.labels) or len(numbers) != definition.width:
                raise ValueError(f"a row of {definition.name} has another shape")
            own[tuple(row)] = (list(map(float, numbers)), float(last_s))
        rows[definition] = own
    folded, ended, expired = document["folded"], document["ended"], document["expired"]
    return Totals(rows, tuple(folded), int(ended), int(expired))  # type: ignore[arg-type, call-overload]


def definition_to_json(definition: Definition) -> list[object]:
    """A definition as a list."""
    own = definition
    return [own.name, own.kind, own.labels, own.bounds, own.mode, own.help, own.unit]


def definition_from_json(items: Sequence[object]) -> Definition:
    """The definition of such a list. Raises: ValueError, TypeError."""
    name, kind, labels, bounds, mode, help_text, unit = items
    if kind not in ("gauge", *COUNTING):
        raise ValueError(f"{kind} is no kind of instrument")
    shape = (str(name), str(kind), tuple(map(str, labels)), tuple(map(str, bounds)))  # type: ignore[call-overload]
    return Definition(*shape, mode=str(mode), help=str(help_text), unit=str(unit))
