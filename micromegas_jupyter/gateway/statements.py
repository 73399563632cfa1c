"""What an executor does for a statement that goes to another engine: it reads, checks and rewrites text of callers."""

from collections.abc import Mapping, Sequence

from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot


def rewrite_statement(  # noqa: PLR0913, PLR0917 - it crosses from one process to another
    snapshots: Sequence[TableSnapshot],
    sql: str,
    caller: AuthContext,
    frames: tuple[bytes, ...],
    row_limit: int | None,
    default_conditions: Mapping[str, str],
    dialect: str,
    max_bytes: int,
    with_nulls: bool,  # noqa: FBT001 - as above
) -> dict[str, object]:
    """Return the statement for the engine, whether rows are hidden from it, and the schema of its parameters.

    With `with_nulls` all placeholders that have no value are null: for a statement that is planned and not run.
    """
    # What the front, which names this function, need not load.
    import pyarrow as pa

    from micromegas_jupyter.config.server import EngineDialect
    from micromegas_jupyter.engine.contract import StatementRequest
    from micromegas_jupyter.engine.errors import missing_parameter
    from micromegas_jupyter.engine.planning import check_statement, find_placeholders, with_plain_parameters
    from micromegas_jupyter.errors import UnsupportedStatement
    from micromegas_jupyter.flightsql.framing import ParameterLimits, decode_parameters
    from micromegas_jupyter.gateway.rewrite import access_of, rewrite

    placeholders = find_placeholders(check_statement(sql, max_bytes=max_bytes))
    batch = decode_parameters(frames, limits=ParameterLimits()) if frames else None
    if batch is not None and batch.num_rows > 1:
        raise UnsupportedStatement(
            "The engine behind this server runs a statement for one row of values only.",
            remedy="Bind one row of values at a time.",
        )
    request = with_plain_parameters(StatementRequest(sql=sql, parameters=batch), placeholders.columns)
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
    access = access_of(caller, default_conditions=default_conditions, tables=tables)
    found = rewrite(
        placeholders.sql,
        access=access,
        tables=tables,
        dialect=EngineDialect(dialect),
        row_limit=row_limit,
        parameters=values,
        max_bytes=max_bytes,
    )
    return {
        "sql": found.sql,
        "hides_rows": access is not None and any(access.conditions(table) for table in found.tables),
        "parameters": kinds.serialize().to_pybytes().hex(),
        "is_bound": request.parameters is not None or not placeholders.columns,
    }


def list_visible(
    snapshots: Sequence[TableSnapshot], caller: AuthContext, default_conditions: Mapping[str, str]
) -> list[str]:
    """Return the names of the tables that a caller sees."""
    from micromegas_jupyter.gateway.rewrite import access_of

    tables = {one.name: one.schema for one in snapshots}
    access = access_of(caller, default_conditions=default_conditions, tables=tables)
    return [name for name in tables if access is None or access.may_read(name)]
