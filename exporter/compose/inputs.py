"""Rule files and SQL collector files, read from the disk with every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from exporter.collectors.sqlconfig import SqlFile, read_sql_file
from exporter.errors import ConfigError, InputError, Problem
from exporter.rules.format import read_rule_files
from exporter.rules.model import RuleGroup


def load_groups(paths: Iterable[Path]) -> tuple[RuleGroup, ...]:
    """The rule groups of all files.

    Raises: RuleFormatError or ConfigError with every problem, each with file:line:column.
    """
    return read_rule_files([(str(path), _read(path)) for path in paths])


def load_sql(paths: Iterable[Path], expand: Callable[[str], str]) -> tuple[SqlFile, ...]:
    """The SQL collectors of all files; `expand` puts the environment into the URLs of further databases.

    Raises: ConfigError with every problem of every file, and for a collector that two files declare.
    """
    files: list[SqlFile] = []
    problems: list[Problem] = []
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            file = read_sql_file(_read(path), str(path), expand)
        except InputError as error:
            problems.extend(error.problems)
            continue
        files.append(file)
        for spec in file.collectors:
            if spec.name in seen and seen[spec.name] != path:
                problems.append(Problem(f'collector "{spec.name}" is also in {seen[spec.name]}', str(path)))
            seen.setdefault(spec.name, path)
    if problems:
        raise ConfigError(problems)
    return tuple(files)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(Problem("is not UTF-8 text", str(path), 1, 1)) from error
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
