"""Rewrites a statement for another engine with the same meaning, restricted to the rows that the caller may read.

The engine's SQL is generated from the checked syntax tree; the caller's text is never forwarded. Each table reference
is replaced by a query for its known columns and the rows that the caller may see. Named queries get new names, so that
nothing can shadow a table, regardless of the engine's rules for names. All this runs in an executor.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.config.server import EngineDialect
from micromegas_jupyter.core.protocols import AuthContext, TableAccess, TableSnapshot, find_table_access
from micromegas_jupyter.engine.contract import ANY, MAX_STATEMENT_BYTES, EngineSettings, Reads, StatementRequest
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    ResourcesExhausted,
    StatementRefused,
    UnsupportedStatement,
)

if TYPE_CHECKING:
    from datafusion import SessionContext
    from sqlglot import exp

    from micromegas_jupyter.engine.planning import Placeholders

_NO_VALUES: Mapping[str, pa.Scalar] = MappingProxyType({})
_ALL_ROWS: Final = (1 << 63) - 1
_PLANNING_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A generated statement in the engine's dialect, and the tables and columns that it reads.

    `in_datafusion` is the same statement, with the same rows, in the embedded engine's dialect.
    """

    sql: str
    in_datafusion: str
    reads: Reads

    @property
    def tables(self) -> frozenset[str]:
        """The tables that the statement reads."""
        return frozenset(self.reads)


def access_of(
    caller: AuthContext, *, default_conditions: Mapping[str, str], tables: Mapping[str, pa.Schema]
) -> TableAccess | None:
    """Return the result of `find_table_access`, with the caller's values in the conditions."""
    from micromegas_jupyter.engine.functions.identity import with_caller_in_condition

    access = find_table_access(caller, default_conditions)
    if access is None:
        return None
    return TableAccess(
        filters={
            table: tuple(
                with_caller_in_condition(one, caller, columns=tables[table].names) for one in access.conditions(table)
            )
            for table in tables
            if access.may_read(table)
        }
    )


def rewrite(  # noqa: PLR0913 - what a statement's meaning depends on
    sql: str,
    *,
    access: TableAccess | None,
    tables: Mapping[str, pa.Schema],
    dialect: EngineDialect,
    row_limit: int | None = None,
    parameters: Mapping[str, pa.Scalar] = _NO_VALUES,
    max_bytes: int = MAX_STATEMENT_BYTES,
) -> Rewritten:
    """Return the engine's equivalent of `sql` in the embedded engine, or raise an error if there is no equivalent.

    Args:
        sql: One query in the dialect of the embedded engine, with placeholders `$1` or `$name`.
        access: What the caller may read, from `access_of`.
        tables: The engine's tables by name; columns that are missing from a schema do not exist.
        dialect: The engine's dialect.
        row_limit: Return at most this many rows, in addition to the statement's own LIMIT.
        parameters: Values of the placeholders, by name without `$`; they are written into the statement.
        max_bytes: The maximum length of a statement.
    """
    from micromegas_jupyter.engine.workarounds.in_list_syntax import make_lists_null_safe
    from micromegas_jupyter.engine.workarounds.subquery_syntax import make_memberships_null_safe
    from micromegas_jupyter.gateway import syntax, terms

    visible = {name: schema for name, schema in tables.items() if access is None or access.may_read(name)}
    try:
        tree = syntax.parse(sql, max_bytes=max_bytes)
        resolved = syntax.resolve(tree, sql=sql, tables=visible, taken=tables, parameters=parameters)
        reads = {name: sorted(columns) for name, columns in _columns_read(resolved.tree, resolved.tables).items()}
        conditions = {name: () if access is None else access.conditions(name) for name in resolved.tables.values()}
        nested = {one.name for name in resolved.tables.values() for one in tables[name] if pa.types.is_nested(one.type)}
        is_behind_barrier = any(conditions.values()) and not terms.is_leakproof(resolved.tree, nested=nested)

        def text_in(dialect: EngineDialect) -> str:
            tree = _in_dialect(resolved.tree.copy(), dialect)
            for table in syntax.tables_in(tree):
                if (name := resolved.tables.get(table.name)) is not None:
                    _check_case(name, tables, dialect)
                    rows = _visible_rows(
                        name, tables[name], conditions[name], dialect, is_behind_barrier=is_behind_barrier
                    )
                    syntax.put(table, rows)
                elif (call := resolved.series.get(table.name)) is not None:
                    syntax.put(table, syntax.series(call.copy(), is_spark=dialect is EngineDialect.SPARK))
            if row_limit is not None:
                tree = syntax.limited(tree, row_limit)
            if not make_memberships_null_safe(tree):
                raise syntax.refused("NOT IN (SELECT …) in this position")
            make_lists_null_safe(tree)
            return syntax.written(tree, is_spark=dialect is EngineDialect.SPARK)

        text = text_in(dialect)
        in_datafusion = text if dialect is EngineDialect.DATAFUSION else text_in(EngineDialect.DATAFUSION)
    except RecursionError as error:
        raise StatementRefused("The statement is nested too deeply.") from error
    return Rewritten(sql=text, in_datafusion=in_datafusion, reads=reads)


def _columns_read(tree: "exp.Query", tables: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the columns that a resolved statement reads, keyed by table name in `tables`.

    Columns that a CTE or a subquery selects count even if they are not used.
    """
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    reads: dict[str, set[str]] = {tables[one.name]: set() for one in tree.find_all(exp.Table) if one.name in tables}
    for scope in traverse_scope(tree):
        for column in scope.columns:
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table) and source.name in tables:
                reads[tables[source.name]].add(column.name)
    if any(join.args.get("method") for join in tree.find_all(exp.Join)):  # such as NATURAL, which doesn't list columns
        return {name: {ANY} for name in reads}
    return reads


def _in_dialect(tree: "exp.Query", dialect: EngineDialect) -> "exp.Query":
    if dialect is EngineDialect.DATAFUSION:
        return tree
    from micromegas_jupyter.gateway.spark import to_spark

    return to_spark(tree)


def _check_case(name: str, tables: Mapping[str, pa.Schema], dialect: EngineDialect) -> None:
    """Check that names are unambiguous if the engine ignores case."""
    columns = tables[name].names
    if dialect is EngineDialect.SPARK and (
        sum(other.lower() == name.lower() for other in tables) > 1
        or len({one.lower() for one in columns}) < len(columns)
    ):
        raise StatementRefused("The engine can't distinguish names that differ only in case.")


def _visible_rows(
    name: str, schema: pa.Schema, conditions: tuple[str, ...], dialect: EngineDialect, *, is_behind_barrier: bool
) -> "exp.Query":
    from micromegas_jupyter.gateway import syntax

    try:
        rows = _in_dialect(syntax.rows_of(name, schema, conditions), dialect)
    except (MicromegasError, RecursionError) as error:
        raise InternalError(
            "The server can't determine which rows of a table you may read, so the statement wasn't run.",
            remedy="Tell the server's administrator that a row condition can't be expressed in the engine's dialect.",
        ) from error
    if conditions and is_behind_barrier:
        return syntax.behind_barrier(rows, schema, _ALL_ROWS, is_spark=dialect is EngineDialect.SPARK)
    return rows


def rewrite_statement(  # noqa: PLR0913, PLR0917 - it crosses from one process to another
    snapshots: Sequence[TableSnapshot],
    sql: str,
    caller: AuthContext,
    frames: tuple[bytes, ...],
    row_limit: int | None,
    limits: EngineSettings,
    dialect: str,
    with_nulls: bool,  # noqa: FBT001 - as above
) -> dict[str, object]:
    """Return the statement for the engine (empty if it can't be planned yet), and the schema of its parameters.

    With `with_nulls`, all placeholders without values are null, for a statement that is planned but not run.
    """
    # Imported here because the front process, which references this function, doesn't need these modules.
    from micromegas_jupyter.engine.errors import missing_parameter
    from micromegas_jupyter.engine.planning import check_statement, find_placeholders, with_plain_parameters
    from micromegas_jupyter.engine.plans.reads import bounded
    from micromegas_jupyter.flightsql.framing import ParameterLimits, decode_parameters

    placeholders = find_placeholders(check_statement(sql, max_bytes=limits.max_statement_bytes))
    batch = decode_parameters(frames, limits=ParameterLimits()) if frames else None
    if batch is not None and batch.num_rows > 1:
        raise UnsupportedStatement(
            "The engine behind this server can run a statement with only one row of values.",
            remedy="Bind one row of values at a time.",
        )
    request = with_plain_parameters(StatementRequest(sql=sql, parameters=batch), placeholders)
    kinds = pa.schema([pa.field(column, pa.null()) for column in placeholders.columns])
    values: dict[str, pa.Scalar] = {}
    if request.parameters is not None:
        kinds = request.parameters.schema
        values = placeholders.bind(request.parameters)
    elif placeholders.columns and with_nulls:
        values = placeholders.bind(pa.RecordBatch.from_pylist([dict.fromkeys(placeholders.columns)], schema=kinds))
    elif placeholders.columns:
        raise missing_parameter(list(placeholders.written))
    tables = {one.name: one.schema for one in snapshots}
    access = access_of(caller, default_conditions=limits.default_conditions, tables=tables)
    found = rewrite(
        placeholders.sql,
        access=access,
        tables=tables,
        dialect=EngineDialect(dialect),
        row_limit=row_limit,
        parameters=values,
        max_bytes=limits.max_statement_bytes,
    )
    hides_rows = access is not None and any(access.conditions(table) for table in found.tables)
    is_bound = request.parameters is not None or not placeholders.columns
    try:
        try_plan(found, sql=placeholders.sql, tables=tables, dialect=dialect, hides_values=hides_rows)
        text = found.sql
        if not is_bound:
            kinds = infer_parameters(placeholders, {name: tables[name] for name in found.tables})
    except (InvalidStatement, UnsupportedStatement, InternalError):
        if is_bound:
            raise
        text = ""  # some statements can't be planned without values
    return {
        "sql": text,
        "hides_rows": hides_rows,
        "parameters": kinds.serialize().to_pybytes().hex(),
        "is_bound": is_bound,
        "reads": bounded(found.reads),
    }


def infer_parameters(placeholders: "Placeholders", tables: Mapping[str, pa.Schema]) -> pa.Schema:
    """Return the types that DataFusion infers for the placeholders of a planned statement over tables without rows.

    All types are null if DataFusion can't plan the statement, which is in the engine's dialect.
    """
    from micromegas_jupyter.engine.errors import is_engine_failure
    from micromegas_jupyter.engine.planning import parameter_schema
    from micromegas_jupyter.engine.sessions import READ_ONLY

    try:
        plan = empty_session(tables).sql_with_options(placeholders.sql, READ_ONLY).logical_plan()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        plan = None
    return parameter_schema(placeholders, None, plan)


def empty_session(tables: Mapping[str, pa.Schema]) -> "SessionContext":
    """Return a session with tables that have these schemas and no rows."""
    from datafusion import SessionContext

    from micromegas_jupyter.engine.scanner import quoted

    session = SessionContext()
    for name, schema in tables.items():
        session.register_record_batches(quoted(name), [[pa.RecordBatch.from_pylist([], schema)]])
    return session


def try_plan(found: Rewritten, *, sql: str, tables: Mapping[str, pa.Schema], dialect: str, hides_values: bool) -> None:
    """Plan a statement over tables without rows, so that plans that never finish fail here instead of in the engine.

    A planner duplicates the x in `coalesce(x, y)`, and inlines named queries: 40 nested levels of either would keep the
    engine busy for days. If the engine has the same planner or more functions, it fails by its own limits. A constant
    that can't be evaluated also fails here, regardless of the tables' contents.
    """
    from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate, translated
    from micromegas_jupyter.engine.plans.constants import check_constants

    context = empty_session({name: tables[name] for name in found.tables})
    named = Context(sql=sql, tables=tuple(found.tables), hides_values=hides_values)
    begin, optimized = time.process_time(), None
    try:
        frame = context.sql(found.in_datafusion)
        optimized = frame.optimized_logical_plan()
        frame.execution_plan()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        if dialect == "spark":
            raise translate(error, named) from None
    if time.process_time() - begin > _PLANNING_SECONDS:
        raise ResourcesExhausted(
            f"Planning the statement takes more than {_PLANNING_SECONDS:g} s of CPU time.",
            remedy="Nest fewer queries and functions, and join fewer tables.",
            limit="planning",
        )
    if optimized is not None:
        with translated(named):
            check_constants(context, optimized)


def list_visible(snapshots: Sequence[TableSnapshot], caller: AuthContext, limits: EngineSettings) -> list[str]:
    """Return the names of the tables that a caller sees."""
    tables = {one.name: one.schema for one in snapshots}
    access = access_of(caller, default_conditions=limits.default_conditions, tables=tables)
    return [name for name in tables if access is None or access.may_read(name)]
