"""Tables out of answers, with the transformations that Grafana would apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.dashboards.answers import Answer


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name, and rows in the order in which they are shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def table_of(panel: Mapping[str, Any], answers: Sequence[Answer]) -> Table:
    """The table that a panel shows: answers, transformations, sorting."""
    tables = [_table(answer, several=len(answers) > 1) for answer in answers if not answer.error]
    found = tables[0] if tables else Table((), ())
    for step in panel.get("transformations") or ():
        options = step.get("options") or {}
        if step.get("id") == "merge":
            found = _merged(tables)
        elif step.get("id") == "reduce":
            found = _as_rows(found)
        elif step.get("id") == "organize":
            found = _organized(found, options)
    return _sorted(found, (panel.get("options") or {}).get("sortBy") or ())


def _table(answer: Answer, *, several: bool) -> Table:
    if answer.query.is_sql:
        return Table(answer.columns, answer.rows)
    names = sorted({name for track in answer.tracks for name in track.labels})
    value = f"Value #{answer.query.ref}" if several else "Value"
    rows = tuple(
        (track.ts_ms[-1], *(track.labels.get(name, "") for name in names), track.values[-1])
        for track in answer.tracks
        if track.values
    )
    return Table(("Time", *names, value), rows)


def _merged(tables: Sequence[Table]) -> Table:
    """Rows with the same labels become one."""
    names: dict[str, None] = {}
    for table in tables:
        names.update(dict.fromkeys(table.columns))
    values = [name for name in names if name.startswith("Value")]
    keys = [name for name in names if name not in (*values, "Time", "__name__")]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for table in tables:
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            rows.setdefault(tuple(cells.get(key, "") for key in keys), {}).update(cells)
    columns = ("Time", *keys, *values)
    return Table(columns, tuple(tuple(row.get(name) for name in columns) for row in rows.values()))


def _as_rows(table: Table) -> Table:
    """The columns of the last row, one below the other."""
    last = table.rows[-1] if table.rows else (None,) * len(table.columns)
    return Table(("Field", "Last *"), tuple(zip(table.columns, last, strict=True)))


def _organized(table: Table, options: Mapping[str, Any]) -> Table:
    hidden = {name for name, is_hidden in (options.get("excludeByName") or {}).items() if is_hidden}
    order = options.get("indexByName") or {}
    renamed = options.get("renameByName") or {}
    kept = [at for at, name in enumerate(table.columns) if name not in hidden]
    kept.sort(key=lambda at: order.get(table.columns[at], len(order) + at))
    return Table(
        tuple(renamed.get(table.columns[at]) or table.columns[at] for at in kept),
        tuple(tuple(row[at] for at in kept) for row in table.rows),
    )


def _sorted(table: Table, by: Sequence[Mapping[str, Any]]) -> Table:
    rows = list(table.rows)
    for one in reversed(by):
        if one.get("displayName") in table.columns:
            at = table.columns.index(one["displayName"])
            present = [row for row in rows if row[at] is not None]
            present.sort(key=lambda row, at=at: row[at], reverse=bool(one.get("desc")))  # type: ignore[misc]
            rows = present + [row for row in rows if row[at] is None]
    return Table(table.columns, tuple(rows))
