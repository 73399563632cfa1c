"""Determines which conditions on source rows have the same meaning on rows of a materialized view.

A row of a view represents rows of its source. If both of the view's queries pass a column through, as a key of every
GROUP BY, these rows and the row of the view have the same value in it. A condition that uses only such columns keeps or
hides whole groups, so it may be applied to the view's rows. A column that merely has the same name doesn't count.

Only plans with known steps pass columns through: a chain of projections, filters, sorts, and groups over one scan,
without subqueries, grouping sets, or volatile functions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa
from datafusion import SessionContext
from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.functions.query_functions import changing_functions, register_flat_functions
from micromegas_jupyter.engine.scanner import quoted, scan
from micromegas_jupyter.engine.schemas import flat_schema
from micromegas_jupyter.engine.sessions import READ_ONLY

_NOTHING: Final = pa.schema([])
#: Types whose equal values are identical; others have values such as 0.0 and -0.0, or several stored forms.
_EXACT: Final = (
    pa.types.is_boolean, pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
    pa.types.is_date32, pa.types.is_timestamp,
)  # fmt: skip
#: Steps that return the columns of their input.
_SAME_COLUMNS: Final = frozenset({"Filter", "Sort", "SubqueryAlias"})


def view_condition(
    view: TableSnapshot, conditions: tuple[str, ...], problem_of: Callable[[str, pa.Schema], object]
) -> tuple[str, ...] | None:
    """Return conditions on a materialized view's stored rows that are equivalent to its source's `conditions`.

    They keep the rows that the view's queries return for source rows that meet at least one of the conditions. Returns
    None if there are no such conditions: the view then doesn't exist for the caller. `problem_of` returns why a
    condition doesn't fit columns, or None.
    """
    if not conditions:
        return ()
    facts = view.materialized
    if facts is None or view.problem is not None or view.merge_sql is None or view.raw_name is None:
        return None
    source = facts.source
    if source.merge_sql is not None or source.source is not None or source.materialized is not None:
        return None
    try:
        columns = _shared_columns(
            (facts.extract_sql, source.name, flat_schema(source.schema)),
            (view.merge_sql, view.raw_name, flat_schema(view.schema)),
            source.split_times,
        )
        is_shared = bool(len(columns)) and not any(problem_of(one, columns) for one in conditions)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None
    return conditions if is_shared else None


_Query = tuple[str, str, pa.Schema]


@functools.lru_cache(maxsize=512)
def _shared_columns(extract: _Query, merge: _Query, split_times: tuple[str, ...]) -> pa.Schema:
    """Return the source's columns that a view's two queries pass through unchanged."""
    (_, _, source), (_, _, stored) = extract, merge
    try:
        extracted, merged = _passed_through(*extract), _passed_through(*merge)
    except Exception:  # noqa: BLE001 - DataFusion has no class for it
        return _NOTHING
    return pa.schema(
        [
            field
            for field in source
            if extracted.get(field.name) == merged.get(field.name) == field.name
            and stored.field(field.name).type == field.type
            and field.name not in split_times
            and any(is_exact(field.type) for is_exact in _EXACT)
        ]
    )


def _passed_through(sql: str, table: str, schema: pa.Schema) -> dict[str, str]:
    """Map the columns of a query's result that are columns of a table to their names in the table."""
    scanned = scan(sql)
    if not scanned.is_certain or scanned.names & changing_functions():
        return {}
    context = SessionContext()
    register_flat_functions(context, scanned.names)
    context.register_record_batches(quoted(table), [[pa.RecordBatch.from_pylist([], schema=schema)]])
    plan = context.sql_with_options(sql, READ_ONLY).logical_plan()
    # Queries inside expressions aren't among a plan's inputs.
    if "subquery" in plan.display_indent().lower().replace("subqueryalias", ""):
        return {}
    return {name: found for name, found in zip(*_columns(context, plan, table), strict=True) if found is not None}


def _columns(context: SessionContext, plan: LogicalPlan, table: str) -> tuple[list[str], list[str | None]]:
    """Return the names of a plan's columns, and the table column that each one corresponds to, if any."""
    names = context.create_dataframe_from_logical_plan(plan).schema().names
    nothing: list[str | None] = [None] * len(names)
    variant, below = plan.to_variant(), plan.inputs()
    kind = type(variant).__name__
    if len(set(names)) < len(names):
        return names, nothing
    if kind == "TableScan":
        return names, list(names) if variant.table_name() == table and not below else nothing
    if len(below) != 1:
        return names, nothing
    inner_names, inner = _columns(context, below[0], table)
    known = dict(zip(inner_names, inner, strict=True))
    found = nothing
    if kind in _SAME_COLUMNS and "fetch" not in plan.display():
        found = inner
    elif kind == "Projection":
        found = [_column(one, known) for one in variant.projections()]
    elif kind == "Aggregate" and all(one.variant_name() != "GroupingSet" for one in variant.group_by_exprs()):
        # The aggregates follow the keys.
        keys = [_column(one, known) for one in variant.group_by_exprs()]
        found = keys + [None] * len(variant.aggregate_exprs())
    return names, found if len(found) == len(names) else nothing


def _column(expression: Expr, known: Mapping[str, str | None]) -> str | None:
    """Return the table column that an expression represents, possibly under another name, or None."""
    while expression.variant_name() == "Alias":
        expression = expression.to_variant().expr()
    return known.get(expression.to_variant().name()) if expression.variant_name() == "Column" else None
