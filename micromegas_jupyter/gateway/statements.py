"""What an executor does for a statement that goes to another engine: it reads, checks and rewrites text of callers."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

    from micromegas_jupyter.engine.planning import Placeholders
    from micromegas_jupyter.gateway.rewrite import Rewritten

_PLANNING_SECONDS: Final = 3.0


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
    """Return the statement for the engine, empty if it has no plan yet, and the schema of its parameters.

    With `with_nulls` all placeholders that have no value are null: for a statement that is planned and not run.
    """
    # What the front, which names this function, need not load.
    import pyarrow as pa

    from micromegas_jupyter.config.server import EngineDialect
    from micromegas_jupyter.engine.errors import missing_parameter
    from micromegas_jupyter.engine.planning import check_statement, find_placeholders, with_plain_parameters
    from micromegas_jupyter.engine.plans.reads import bounded
    from micromegas_jupyter.errors import InternalError, InvalidStatement, UnsupportedStatement
    from micromegas_jupyter.flightsql.framing import ParameterLimits, decode_parameters
    from micromegas_jupyter.gateway.rewrite import access_of, rewrite

    placeholders = find_placeholders(check_statement(sql, max_bytes=limits.max_statement_bytes))
    batch = decode_parameters(frames, limits=ParameterLimits()) if frames else None
    if batch is not None and batch.num_rows > 1:
        raise UnsupportedStatement(
            "The engine behind this server runs a statement for one row of values only.",
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
        text = ""  # some statements have no plan without their values
    return {
        "sql": text,
        "hides_rows": hides_rows,
        "parameters": kinds.serialize().to_pybytes().hex(),
        "is_bound": is_bound,
        "reads": bounded(found.reads),
    }


def infer_parameters(placeholders: "Placeholders", tables: Mapping[str, "pa.Schema"]) -> "pa.Schema":
    """Return the types that DataFusion infers for the placeholders of a planned statement over tables without rows.

    The type of each is null if DataFusion can't plan the statement, which is in the engine's dialect.
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


def empty_session(tables: Mapping[str, "pa.Schema"]) -> "SessionContext":
    """Return a session with tables of these schemas and without rows."""
    import pyarrow as pa
    from datafusion import SessionContext

    from micromegas_jupyter.engine.scanner import quoted

    session = SessionContext()
    for name, schema in tables.items():
        session.register_record_batches(quoted(name), [[pa.RecordBatch.from_pylist([], schema)]])
    return session


def try_plan(
    found: "Rewritten", *, sql: str, tables: Mapping[str, "pa.Schema"], dialect: str, hides_values: bool
) -> None:
    """Plan a statement over tables without rows: what no planner comes to an end with ends here, not in the engine.

    A planner writes `coalesce(x, y)` with two x, and a named query where it is named: 40 of either, each within the
    next, would keep the engine busy for days. An engine that plans as this process does, or knows more functions, is
    left to fail by itself. A constant that can't be evaluated fails here, too, whatever is in the tables.
    """
    from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate, translated
    from micromegas_jupyter.engine.plans.constants import check_constants
    from micromegas_jupyter.errors import ResourcesExhausted

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
            f"The statement takes more than {_PLANNING_SECONDS:g} s of CPU time to be planned.",
            remedy="Nest fewer queries and functions, and join fewer tables.",
            limit="planning",
        )
    if optimized is not None:
        with translated(named):
            check_constants(context, optimized)


def list_visible(snapshots: Sequence[TableSnapshot], caller: AuthContext, limits: EngineSettings) -> list[str]:
    """Return the names of the tables that a caller sees."""
    from micromegas_jupyter.gateway.rewrite import access_of

    tables = {one.name: one.schema for one in snapshots}
    access = access_of(caller, default_conditions=limits.default_conditions, tables=tables)
    return [name for name in tables if access is None or access.may_read(name)]
