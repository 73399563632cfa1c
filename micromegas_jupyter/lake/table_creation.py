"""A write into a table that is not there yet: the table appears together with its first rows, or not at all."""

import contextlib
import shutil

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.segment_write import SegmentWrite
from micromegas_jupyter.lake.streamed_file import write_errors
from micromegas_jupyter.lake.user_tables import UserTable, UserTables


class CreatingWrite:
    """Writes rows into a folder that no table has yet, then makes the table; implements `contracts.TableWrite`.

    Args:
        tables: Where the table is to be.
        table: The table.
        rows: The write into its folder.
        request: What was asked for.
    """

    def __init__(self, tables: UserTables, table: UserTable, rows: SegmentWrite, request: WriteRequest) -> None:
        self._tables = tables
        self._table = table
        self._rows = rows
        self._request = request
        self._is_made = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; see `contracts.TableWrite`."""
        self._rows.write(batch)

    def commit(self) -> int:
        """Make the table with its rows and return how many those are.

        When somebody made a table of that name meanwhile, the rows go there if that was asked for and the columns are
        the same.

        Raises:
            UsageError: There is a table of that name by now.
            ResourcesExhausted: There is no room; nothing is stored.
            Unavailable: It cannot be stored now; nothing is stored.
        """
        row_count = self._rows.commit()
        with write_errors():
            self._is_made = self._tables.add(self._table)
            if not self._is_made:
                self._join(self._tables.find(self._table.name))
        return row_count

    def abandon(self) -> None:
        """Leave nothing behind; does nothing once the table is made."""
        self._rows.abandon()
        if not self._is_made:
            # Nobody else knows this folder: its name was drawn for this write.
            with contextlib.suppress(OSError):
                shutil.rmtree(self._table.folder)

    def _join(self, other: UserTable | None) -> None:
        write_id = self._request.write_id
        if other is not None and write_id is not None and other.write_id == write_id:
            return  # the same write, sent twice at once
        if other is None or self._request.mode is WriteMode.CREATE:
            raise exists_already(self._table.name)
        if not other.schema.equals(self._table.schema):
            raise UsageError(
                f"The table {other.name} was made meanwhile, with other columns.", remedy="Send the rows again."
            )
        self._rows.move_to(other.folder)


def exists_already(name: str) -> UsageError:
    """Return the error for a table that is not to be there."""
    return UsageError(
        f"There is a table {name} already.", remedy='Append to it (mode "append"), or choose another name.'
    )
