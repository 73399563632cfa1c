"""PEP 249 (DB-API) and ADBC's extensions to it: a client is also a connection."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from micromegas_jupyter import errors

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.dbapi.cursor import Cursor, Parameters


class ConnectionMethods(ABC):
    """The methods of PEP 249 and ADBC's extensions, for pandas, Polars, JupySQL, and marimo."""

    Warning: ClassVar = Warning
    Error: ClassVar = errors.Error
    InterfaceError: ClassVar = errors.InterfaceError
    DatabaseError: ClassVar = errors.DatabaseError
    DataError: ClassVar = errors.DataError
    OperationalError: ClassVar = errors.OperationalError
    IntegrityError: ClassVar = errors.IntegrityError
    InternalError: ClassVar = errors.InternalError
    ProgrammingError: ClassVar = errors.ProgrammingError
    NotSupportedError: ClassVar = errors.NotSupportedError

    adbc_current_db_schema = ""

    @property
    def adbc_current_catalog(self) -> str:
        """The name of the only catalog: empty, except in marimo."""
        from micromegas_jupyter.client.workarounds.marimo_catalog import catalog_name

        return catalog_name()

    @abstractmethod
    def list_tables(self, *, timeout_seconds: float | None = None) -> "dict[str, pa.Schema]":
        """Return the schema of each table by its name."""

    def cursor(self) -> "Cursor":
        """Return a new cursor (PEP 249)."""
        from micromegas_jupyter.client.dbapi.cursor import Cursor

        return Cursor(self)

    def execute(self, operation: str, parameters: "Parameters" = None) -> "Cursor":
        """Run a statement with a new cursor and return the cursor."""
        return self.cursor().execute(operation, parameters)

    def commit(self) -> None:  # noqa: B027 - PEP 249 requires it
        """Do nothing: the server has no transactions."""

    def rollback(self) -> None:  # noqa: B027 - PEP 249 requires it
        """Do nothing: the server has no transactions."""

    def adbc_get_info(self) -> dict[str | int, Any]:
        """Return ADBC's information about a driver and its database."""
        from micromegas_jupyter.client.dbapi.catalog import driver_info

        return driver_info()

    def adbc_get_table_types(self) -> list[str]:
        """Return the table types: `table`."""
        return ["table"]

    def adbc_get_table_schema(
        self, table_name: str, *, catalog_filter: str | None = None, db_schema_filter: str | None = None
    ) -> "pa.Schema":
        """Return the schema of a table. The server has one catalog and one schema, both without a name.

        Raises:
            UsageError: You can't read a table with this name.
        """
        from micromegas_jupyter.client.dbapi.catalog import find_table

        return find_table(self.list_tables(), table_name, catalog=catalog_filter, db_schema=db_schema_filter)

    def adbc_get_objects(  # noqa: PLR0913 - ADBC's arguments
        self,
        *,
        depth: str = "all",
        catalog_filter: str | None = None,
        db_schema_filter: str | None = None,
        table_name_filter: str | None = None,
        table_types_filter: list[str] | None = None,
        column_name_filter: str | None = None,
    ) -> "pa.RecordBatchReader":
        """Return tables and their columns in ADBC's nested form; in the filters, `%` and `_` are wildcards.

        Args:
            depth: `catalogs`, `db_schemas`, `tables`, or `all`; `columns` is the same as `all`.
            catalog_filter: A pattern for catalogs. The only catalog has no name.
            db_schema_filter: A pattern for schemas. The only schema has no name.
            table_name_filter: A pattern for tables.
            table_types_filter: Table types; all tables have the type `table`.
            column_name_filter: A pattern for columns.
        """
        from micromegas_jupyter.client.dbapi.catalog import Filters, build_objects

        filters = Filters(catalog_filter, db_schema_filter, table_name_filter, table_types_filter, column_name_filter)
        return build_objects(self.list_tables, depth, filters)
