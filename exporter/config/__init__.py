"""Configuration: YAML and environment in, frozen dataclasses or a full list of problems out.

`schema` declares every field with its default, unit and help; `load` reads a file, expands `${VAR}` and
`${VAR:-default}`, and checks shape first, cross-references second; `positions` is the YAML reader with line
and column that rule files, SQL collectors and provider declarations use too.
"""
