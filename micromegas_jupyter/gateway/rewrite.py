"""Writes a statement anew for another engine: over the rows that its caller may see, and with the caller's meaning.

The engine gets a text that was made of the checked syntax tree, never the caller's. Each table is replaced, where it
stands, by a query for its known columns and the rows that the caller may see, and named queries get new names: what
could shadow a table is gone, whatever the engine's rules for names are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.config.server import EngineDialect
from micromegas_jupyter.core.protocols import AuthContext, TableAccess, find_table_access
from micromegas_jupyter.engine.contract import ANY, MAX_STATEMENT_BYTES, Reads
from micromegas_jupyter.errors import InternalError, MicromegasError, StatementRefused

if TYPE_CHECKING:
    from sqlglot import exp

_NO_VALUES: Mapping[str, pa.Scalar] = MappingProxyType({})
_ALL_ROWS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A statement for the engine, in its dialect and never the caller's text, and the tables and columns that it reads.

    `in_datafusion` says the same, with the same rows, in the embedded engine's dialect.
    """

    sql: str
    in_datafusion: str
    reads: Reads

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it reads."""
        return frozenset(self.reads)


def access_of(
    caller: AuthContext, *, default_conditions: Mapping[str, str], tables: Mapping[str, pa.Schema]
) -> TableAccess | None:
    """Return what `find_table_access` returns, with the caller's values in the conditions."""
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
    """Return the statement that asks the engine what `sql` asks the embedded engine, or raise why there is none.

    Args:
        sql: One query in the dialect of the embedded engine, with placeholders as `$1` or `$name`.
        access: What the caller may read, from `access_of`.
        tables: What the engine has, by name; columns that are not in a schema do not exist.
        dialect: What the engine takes.
        row_limit: At most this many rows are returned, on top of the statement's own LIMIT.
        parameters: Values of the placeholders, by name without `$`; they are written into the statement.
        max_bytes: The longest statement that is read.
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
                raise syntax.refused("NOT IN (SELECT …) in this place")
            make_lists_null_safe(tree)
            return syntax.written(tree, is_spark=dialect is EngineDialect.SPARK)

        text = text_in(dialect)
        in_datafusion = text if dialect is EngineDialect.DATAFUSION else text_in(EngineDialect.DATAFUSION)
    except RecursionError as error:
        raise StatementRefused("The statement is nested too deeply.") from error
    return Rewritten(sql=text, in_datafusion=in_datafusion, reads=reads)


def _columns_read(tree: "exp.Query", tables: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the columns that a resolved statement reads, by the tables' names in `tables`.

    What a named query or a subquery selects counts, whether or not it is used.
    """
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    reads: dict[str, set[str]] = {tables[one.name]: set() for one in tree.find_all(exp.Table) if one.name in tables}
    for scope in traverse_scope(tree):
        for column in scope.columns:
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table) and source.name in tables:
                reads[tables[source.name]].add(column.name)
    if any(join.args.get("method") for join in tree.find_all(exp.Join)):  # such as NATURAL, which names no columns
        return {name: {ANY} for name in reads}
    return reads


def _in_dialect(tree: "exp.Query", dialect: EngineDialect) -> "exp.Query":
    if dialect is EngineDialect.DATAFUSION:
        return tree
    from micromegas_jupyter.gateway.spark import to_spark

    return to_spark(tree)


def _check_case(name: str, tables: Mapping[str, pa.Schema], dialect: EngineDialect) -> None:
    """Check that no other table or column could be meant where upper and lower case are the same."""
    columns = tables[name].names
    if dialect is EngineDialect.SPARK and (
        sum(other.lower() == name.lower() for other in tables) > 1
        or len({one.lower() for one in columns}) < len(columns)
    ):
        raise StatementRefused("The engine cannot tell names apart that differ only in upper and lower case.")


def _visible_rows(
    name: str, schema: pa.Schema, conditions: tuple[str, ...], dialect: EngineDialect, *, is_behind_barrier: bool
) -> "exp.Query":
    from micromegas_jupyter.gateway import syntax

    try:
        rows = _in_dialect(syntax.rows_of(name, schema, conditions), dialect)
    except (MicromegasError, RecursionError) as error:
        raise InternalError(
            "The server cannot decide which rows of a table you may read, so the statement is not run.",
            remedy="Tell the server's administrator: a condition on rows cannot be said in the engine's dialect.",
        ) from error
    if conditions and is_behind_barrier:
        return syntax.behind_barrier(rows, schema, _ALL_ROWS, is_spark=dialect is EngineDialect.SPARK)
    return rows
