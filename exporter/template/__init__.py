"""Go's text/template as Prometheus uses it in alert labels and annotations.

Data flow: text -> lexer -> parser -> trees (nodes) -> evaluate over AlertData -> text. Functions are looked
up in one table (functions.py: Prometheus', builtins.py: Go's) whose entries name Go parameter types, so that
a wrong argument is refused with Go's words. `query` is a callable in the context: the package does no IO,
reads no clock and keeps no state, so a parsed template may be expanded in any thread.

Invariants: a fault is a TemplateError worded as Prometheus words it; steps, nesting and widths are bounded,
so that no template runs away; a missing label reads as the empty string (missingkey=zero).
Must not import: anything but the standard library, exporter.model and exporter.errors.
"""

from __future__ import annotations

from exporter.template.references import asks_value, prints_value, referenced_labels
from exporter.template.template import Template, TemplateContext, expand_annotation

__all__ = [
    "Template",
    "TemplateContext",
    "asks_value",
    "expand_annotation",
    "prints_value",
    "referenced_labels",
]
