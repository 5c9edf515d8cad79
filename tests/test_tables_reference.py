"""docs/tables.md says of every table, view and function what the migrations make (QE_UPDATE=1 writes it)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import asyncpg
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tables.md"
_START = "<!-- tables: written by tests/test_tables_reference.py from the migrations -->"
_END = "<!-- end of tables -->"

_RELATIONS = """
select c.oid, c.relname as name, c.relkind::text as kind, obj_description(c.oid, 'pg_class') as meaning
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
order by c.relname"""
_COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required,
  coalesce(pg_get_expr(d.adbin, d.adrelid), '') as fallback,
  coalesce(col_description(a.attrelid, a.attnum), '') as meaning,
  (select string_agg(pg_get_constraintdef(k.oid), '; ' order by k.conname) from pg_constraint k
   where k.conrelid = a.attrelid and k.contype in ('p', 'f', 'c') and k.conkey = array[a.attnum]) as rules
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum"""
_FUNCTIONS = """
select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments,
  pg_get_function_result(p.oid) as result
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'public' and p.prorettype <> 'trigger'::regtype
  and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
order by 1, 2"""


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def code(text: str) -> str:
    return f"`{cell(text)}`" if text else ""


def constraint(text: str | None) -> str:
    """A column's rules in short: what the type's own words do not say."""
    return "; ".join(code(part) for part in (text or "").split("; ") if part)


def view_rows(columns: list[asyncpg.Record]) -> list[str]:
    """A view's columns as a table."""
    return ["| column | type |", "| --- | --- |", *(f"| `{c['name']}` | {c['type']} |" for c in columns)]


def table_rows(columns: list[asyncpg.Record]) -> list[str]:
    """A table's columns as a table."""
    out = ["| column | type | default | rules | meaning |", "| --- | --- | --- | --- | --- |"]
    for c in columns:
        kind = c["type"] if c["required"] else f"{c['type']}, or null"
        cells = (code(c["name"]), kind, code(c["fallback"]), constraint(c["rules"]), cell(c["meaning"]))
        out.append(f"| {' | '.join(cells)} |")
    return out


def remark(relation: asyncpg.Record) -> list[str]:
    """What is said of a relation below its name."""
    notes = [relation["meaning"]] if relation["meaning"] else []
    if relation["kind"] == "p":
        notes.append("one partition for each UTC day")
    sentence = "; ".join(notes)
    return [f"{sentence[0].upper()}{sentence[1:]}.", ""] if sentence else []


async def reference(url: str) -> str:
    """The generated part of the page."""
    connection = await asyncpg.connect(url)
    try:
        out: list[str] = []
        relations = await connection.fetch(_RELATIONS)
        for title, kinds, rows in (("Tables", "rp", table_rows), ("Views", "vm", view_rows)):
            out += [f"## {title}", ""]
            for relation in relations:
                if relation["kind"] in kinds:
                    columns = await connection.fetch(_COLUMNS, relation["oid"])
                    out += [f"### {relation['name']}", "", *remark(relation), *rows(columns), ""]
        out += ["## Functions", "", "| function | gives |", "| --- | --- |"]
        out += [
            f"| {code(f['name'] + '(' + f['arguments'] + ')')} | {code(f['result'])} |"
            for f in await connection.fetch(_FUNCTIONS)
        ]
        return "\n".join(out) + "\n"
    finally:
        await connection.close()


@pytest.mark.postgres
async def test_reference_is_current(migrated_url: str) -> None:
    """Every table, view and function of the migrated database stands in the reference, and no other."""
    wanted = f"\n{await reference(migrated_url)}"
    text = PAGE.read_text()
    head, rest = text.split(_START)
    table, tail = rest.split(_END)
    if os.environ.get("QE_UPDATE") == "1":
        PAGE.write_text(f"{head}{_START}{wanted}{_END}{tail}")
    else:
        assert table == wanted, "run QE_UPDATE=1 pytest tests/test_tables_reference.py"
