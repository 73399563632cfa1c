"""Examines a logical plan before it runs: what it reads, the types of its placeholders, and what EXPLAIN may show.

That a plan does not write is ensured by the options it was made with (`sessions.READ_ONLY`).
"""

from __future__ import annotations

import os.path
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.errors import StatementRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.engine.planning.parameters import Placeholders

# A literal with a line break could look like a line of its own: then a statement is refused that need not be, never the
# other way round. Lookups in information_schema ignore case.
_SETTINGS = re.compile(r"^ *TableScan: .*df_settings", re.MULTILINE | re.IGNORECASE)
_EXPLAIN = re.compile(r"(?:Explain|Analyze)\b")
_CHILDREN: Final = ("left", "right", "expr", "low", "high", "pattern", "list")
_MAX_VISITED: Final = 2000
# The label of a counter; a name may hold blanks and commas.
_FILE_LABEL = re.compile(r"filename=[^}]*")
_FILE_GROUPS = re.compile(r"file_groups=\{(\d+ groups?): \[.*?\]\}", re.DOTALL)


def check_plan(plan: LogicalPlan) -> str:
    """Check what only the plan shows; return it as text, one step a line."""
    text = plan.display_indent()
    if _SETTINGS.search(text):
        raise StatementRefused("The engine's settings are not available.", remedy="SHOW TABLES and SHOW COLUMNS work.")
    return text


def is_explain(plan: LogicalPlan) -> bool:
    """Return whether the plan's result is a description of a plan, which may show paths."""
    return _EXPLAIN.match(plan.display()) is not None


def placeholder_types(plan: LogicalPlan) -> dict[str, pa.DataType]:
    """Return the types of placeholders (by name, without `$`) that the plan inferred and shows."""
    found: dict[str, pa.DataType] = {}
    nodes = [plan]
    expressions: list[Any] = []
    for _ in range(_MAX_VISITED):
        if expressions:
            _visit(expressions.pop(), expressions, found)
        elif nodes:
            node = nodes.pop()
            nodes.extend(node.inputs())
            expressions.extend(_expressions_of(node))
        else:
            break
    return found


def parameter_schema(placeholders: Placeholders, parameters: pa.RecordBatch | None, plan: LogicalPlan) -> pa.Schema:
    """Return the types of the values sent, else those that the plan inferred, else null."""
    if not placeholders.columns:
        return pa.schema([])
    if parameters is not None:
        return pa.schema([pa.field(name, parameters.schema.field(name).type) for name in placeholders.columns])
    types = placeholder_types(plan)
    return pa.schema(
        [
            pa.field(column, types.get(written, pa.null()))
            for column, written in zip(placeholders.columns, placeholders.bound_names, strict=True)
        ]
    )


def _expressions_of(node: LogicalPlan) -> list[Any]:
    """Return the expressions of a node, of the kinds for which DataFusion-Python shows them."""
    variant = _variant(node)
    match type(variant).__name__:
        case "Filter":
            return [variant.predicate()]
        case "Projection":
            return list(variant.projections())
        case _:
            return []


def _visit(expression: Any, waiting: list[Any], found: dict[str, pa.DataType]) -> None:
    variant = _variant(expression)
    if type(variant).__name__ == "Placeholder":
        field = variant.field()
        if isinstance(field, pa.Field):
            found[variant.id().removeprefix("$")] = field.type
        return
    for name in _CHILDREN:
        child = getattr(variant, name, None)
        value = child() if callable(child) else None
        waiting.extend(value if isinstance(value, list) else [] if value is None else [value])


def _variant(item: Any) -> Any:
    try:
        return item.to_variant()
    except Exception:  # noqa: BLE001 - DataFusion-Python has no class for this kind: an untyped error says so
        return None


class PathScrubber:
    """Knows the folders of one statement's files and removes paths below them from text."""

    def __init__(self, files: Iterable[Iterable[str]]) -> None:
        folders = {folder for table in files for folder in _folders(tuple(table))}
        spellings = {spelling for folder in folders for spelling in (folder, urllib.parse.quote(folder))}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._paths = (
            re.compile(r"/?(?:" + "|".join(map(re.escape, longest_first)) + r")(?:/[^\s,\]\[{}\"']*)?")
            if longest_first
            else None
        )

    def clean(self, text: str) -> str:
        """Return `text` with numbers of file groups in place of lists, and `…` in place of other paths."""
        text = _FILE_GROUPS.sub(r"file_groups={\1}", text)
        text = _FILE_LABEL.sub("filename=…", text)
        return self._paths.sub("…", text) if self._paths else text

    def clean_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with every string column cleaned."""
        columns = [
            pa.array([None if text is None else self.clean(text) for text in column.to_pylist()], column.type)
            if pa.types.is_string(column.type) or pa.types.is_string_view(column.type)
            else column
            for column in batch.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _folders(files: tuple[str, ...]) -> set[str]:
    """Return the folder that holds all files of a table, or all their folders when only the root does."""
    folders = {file.rpartition("/")[0].rpartition("://")[2].strip("/") for file in files}
    folders.discard("")
    if not folders:
        return set()
    common = os.path.commonpath(folders)
    return {common} if common else folders
