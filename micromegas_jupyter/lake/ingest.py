"""Takes rows that callers send, whole writes at a time, into the tables of a lake; implements `contracts.TableSink`.

Several processes may write into one lake at once. Who may write, and how much, is the server's decision.
"""

from functools import partial

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableWrite, WriteMode, WriteRequest
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Randomness
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.lake.limits import LakeSetup
from micromegas_jupyter.lake.uploads import CreatingWrite, SegmentWrite, exists_already, new_id
from micromegas_jupyter.lake.user_columns import check_fits, shown, stored_schema
from micromegas_jupyter.lake.user_columns import convert_rows as convert_user_rows
from micromegas_jupyter.lake.user_tables import MAX_TABLES, UserTable, UserTables, check_name
from micromegas_jupyter.lake.writer import sort_rows
from micromegas_jupyter.telemetry.conversion import check_columns, check_targets, convert_rows
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, TableDefinition


class LakeSink:
    """Writes into the lake's tables; safe to use from several threads."""

    def __init__(
        self, setup: LakeSetup, user_tables: UserTables, *, randomness: Randomness = SYSTEM_RANDOMNESS
    ) -> None:
        self._setup = setup
        self._user_tables = user_tables
        self._randomness = randomness
        self._definitions = {definition.name: definition for definition in setup.tables}

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write."""
        definition = self._definitions.get(request.table)
        if definition is None:
            return self._open_user_write(request, schema)
        if request.mode is WriteMode.CREATE:
            raise exists_already(request.table)
        check_columns(schema, definition)
        return SegmentWrite(
            self._setup.folder(definition),
            definition.schema,
            convert=partial(_convert, definition=definition, is_trusted=request.is_trusted),
            arrange=partial(sort_rows, definition=definition),
            write_id=request.write_id,
            randomness=self._randomness,
        )

    def _open_user_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        found = self._user_tables.find(request.table)
        if found is None and request.mode is WriteMode.APPEND:
            raise UsageError(
                f"There is no table {shown(request.table)} to add rows to.",
                remedy="Name an existing table, or create it in the same call.",
            )
        if found is None:
            return self._open_creation(request, schema)
        is_repeated = request.write_id is not None and found.write_id == request.write_id
        if request.mode is WriteMode.CREATE and not is_repeated:
            raise exists_already(request.table)
        check_fits(schema, found.schema, is_known=request.may_read)
        return self._segment(found, request)

    def _open_creation(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        check_name(request.table)
        stored = stored_schema(schema)
        self._check_capacity(request)
        folder = self._user_tables.rows_folder(new_id(self._randomness))
        table = UserTable(
            name=request.table, schema=stored, folder=folder, write_id=request.write_id, maker=request.maker
        )
        return CreatingWrite(self._user_tables, table, self._segment(table, request), request)

    def _check_capacity(self, request: WriteRequest) -> None:
        tables = self._user_tables.list()
        if len(tables) >= MAX_TABLES:
            raise ResourcesExhausted(
                f"There are {MAX_TABLES:,} tables already, the most that are allowed.",
                remedy="Append to one of them.",
                limit="ingest",
            )
        most = request.most_tables
        if most is not None and sum(table.maker == request.maker for table in tables) >= most:
            raise ResourcesExhausted(
                f"You have created {most:,} tables, the most that one caller may create.",
                remedy="Append to one of them, or ask the server's administrator for more.",
                limit="ingest",
            )

    def _segment(self, table: UserTable, request: WriteRequest) -> SegmentWrite:
        return SegmentWrite(
            table.folder,
            table.schema,
            convert=partial(convert_user_rows, stored=table.schema, is_known=request.may_read),
            arrange=_as_it_came,
            write_id=request.write_id,
            randomness=self._randomness,
        )


def _convert(rows: pa.RecordBatch, *, definition: TableDefinition, is_trusted: bool) -> pa.RecordBatch:
    converted = convert_rows(rows, definition)
    if definition is LOG_ENTRIES and not is_trusted:
        check_targets(converted)
    return converted


def _as_it_came(rows: pa.Table) -> pa.Table:
    return rows
