"""Answers of the query API as text: promtool's form, tables, JSON, and the tree of an explanation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from exporter.model.labels import LabelSet, quote
from exporter.promql.explain import Step, describe, render
from exporter.promql.floats import plain_float
from exporter.web.encode import dump


def json_text(data: Any) -> str:
    """JSON as Go writes it, on one line."""
    return dump(data).decode()


def value_json(kind: str, result: Any) -> str:
    """A result as promtool writes it in JSON: the series of a matrix as the server sent them."""
    if kind == "vector":
        result = [{**row, "value": _pair(row["value"])} for row in result]
    elif kind == "matrix":
        result = [{**row, "values": [_pair(point) for point in row["values"]]} for row in result]
    elif kind == "scalar":
        result = _pair(result)
    return json_text(result)


def value_lines(kind: str, result: Any) -> Iterable[str]:
    """A result in promtool's form; the series of a matrix come in label order."""
    if kind == "scalar":
        yield f"scalar: {_number(result[1])} @[{_seconds(result[0])}]"
    elif kind == "string":
        yield str(result[1])
    elif kind == "vector":
        for row in result:
            yield f"{_series(row)} => {_number(row['value'][1])} @[{_seconds(row['value'][0])}]"
    else:
        for row in sorted(result, key=lambda row: LabelSet.of(row["metric"]).pairs):
            yield f"{_series(row)} =>"
            yield from (f"{_number(value)} @[{_seconds(ts)}]" for ts, value in row["values"])


def item_lines(items: Sequence[Any]) -> Iterable[str]:
    """Label sets or values, one on a line, in promtool's form."""
    for item in items:
        if isinstance(item, Mapping):
            yield "{" + ", ".join(f"{name}={quote(value)}" for name, value in LabelSet.of(item)) + "}"
        else:
            yield str(item)


def value_table(kind: str, result: Any) -> Table:
    """Series, value and time (UTC), a line for each sample."""
    table = Table("series", "value", "time")
    if kind in ("scalar", "string"):
        table.add_row(Text(kind), Text(str(result[1])), _clock(result[0]))
        return table
    for row in result:
        for ts, value in row.get("values") or [row["value"]]:
            table.add_row(Text(_series(row)), Text(value), _clock(ts))
    return table


def item_table(items: Sequence[Any], title: str) -> Table:
    """One item on a line."""
    table = Table(title)
    for line in item_lines(items):
        table.add_row(Text(line))
    return table


def print_tree(root: Step, console: Console) -> None:
    """The explanation: a drawn tree on a terminal, indented lines in a pipe."""
    if not console.is_terminal:
        print(render(root))
        return
    console.print(_branch(root, root.seconds))


def step_of(document: Mapping[str, Any]) -> Step:
    """A sub-expression of an explanation from the API's JSON."""
    return Step(
        text=str(document["expr"]),
        kind=str(document["type"]),
        series=int(document["series"]),
        samples=int(document["samples"]),
        seconds=float(document["seconds"]),
        value=str(document.get("value", "")),
        parts=[step_of(part) for part in document["parts"]],
    )


def _branch(step: Step, total_s: float) -> Tree:
    size, times = describe(step)
    line = Text(step.text, style="bold")
    if step.value:
        line.append(f" = {step.value}", style="green")
    line.append(f"  {size}", style="cyan")
    hot = total_s > 0 and step.own_seconds > total_s / 3
    line.append(f"  {times}", style="red" if hot else "dim")
    tree = Tree(line)
    for part in step.parts:
        tree.add(_branch(part, total_s))
    return tree


def _pair(point: Sequence[Any]) -> list[Any]:
    return [point[0], _number(point[1])]


def _number(text: str) -> str:
    """Promtool writes no exponents."""
    return plain_float(float(text))


def _series(row: Mapping[str, Any]) -> str:
    return str(LabelSet.of(row["metric"]))


def _seconds(ts: float) -> str:
    text = f"{ts:.3f}".rstrip("0")
    return text.rstrip(".")


def _clock(ts: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ts))
