"""What the rows of `%%sql` become: a DataFrame of pandas or polars, an Arrow table, or a reader.

How the rows arrive is `running`'s job, how a pandas DataFrame is made of them `client.frames`'.
"""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, assert_never

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.words import cut, printable

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_NAME_CHARACTERS = 60
_MAX_TYPES_CHARACTERS = 200


class RowFormat(StrEnum):
    """A value of `--format`."""

    PANDAS = "pandas"
    ARROW = "arrow"
    POLARS = "polars"
    READER = "reader"

    @property
    def shown(self) -> str:
        """What a line calls the variable's type."""
        match self:
            case RowFormat.PANDAS:
                return "DataFrame"
            case RowFormat.ARROW:
                return "pyarrow.Table"
            case RowFormat.POLARS:
                return "polars.DataFrame"
            case RowFormat.READER:
                return "reader"
            case _:
                assert_never(self)


def check_available(row_format: RowFormat) -> None:
    """Check that what makes this format is installed.

    Raises:
        UsageError: It is not.
    """
    if row_format is RowFormat.POLARS and find_spec("polars") is None:
        raise UsageError(
            "--format polars needs polars, which is not installed here.",
            remedy="Run %pip install 'micromegas_jupyter[polars]', or use --format arrow.",
        )


def check_dtype(dtype: str | None, row_format: RowFormat) -> str | None:
    """Return the argument, a value of `--dtype`.

    Raises:
        UsageError: The rows do not become a pandas DataFrame.
    """
    if dtype is not None and row_format is not RowFormat.PANDAS:
        raise UsageError("--dtype is for pandas DataFrames.", remedy=f"Leave it out with --format {row_format.value}.")
    return dtype


def check_schema(row_format: RowFormat, schema: pa.Schema) -> None:
    """Check that this format can hold such rows, before they are fetched.

    Raises:
        UsageError: It cannot.
    """
    if row_format is not RowFormat.POLARS:
        return
    for field in schema:
        # polars ends in a panic over these, not in an error.
        if "decimal256" in str(field.type):
            raise UsageError(
                f"The column {_shown(field.name)} is of type decimal256, which polars cannot hold.",
                remedy="Cast it in the statement, or use --format arrow.",
            )
    _to_polars(schema.empty_table())


def convert(row_format: RowFormat, table: pa.Table) -> Any:
    """Return the rows in a format that is made of a whole table.

    Raises:
        UsageError: The format cannot hold them.
    """
    match row_format:
        case RowFormat.ARROW:
            return table
        case RowFormat.POLARS:
            return _to_polars(table)
        case RowFormat.PANDAS | RowFormat.READER:
            raise AssertionError("made before there is a table")
        case _:
            assert_never(row_format)


def _to_polars(table: pa.Table) -> Any:
    import polars as pl

    try:
        return pl.from_arrow(table)
    except pl.exceptions.DuplicateError as error:
        raise UsageError(
            "Two columns have the same name, which polars cannot hold.",
            remedy="Rename one with AS, or use --format arrow.",
        ) from error
    except pl.exceptions.PolarsError as error:
        types = cut(", ".join(dict.fromkeys(str(kind) for kind in table.schema.types)), _MAX_TYPES_CHARACTERS)
        raise UsageError(
            f"polars cannot hold these columns ({types}).",
            remedy="Cast the one in question in the statement, or use --format arrow.",
        ) from error


def _shown(name: str) -> str:
    return f'"{cut(printable(name), _MAX_NAME_CHARACTERS)}"'
