"""One write of rows into one table's folder: a single file that appears when all rows have come.

Which table that is, and what becomes of the rows' columns, is for others.
"""

import base64
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import InternalError, UsageError
from micromegas_jupyter.lake.files import make_private_folder, name_once
from micromegas_jupyter.lake.segments import Segment, is_writer_id
from micromegas_jupyter.lake.streamed_file import StreamedFile, write_errors

Convert = Callable[[pa.RecordBatch], pa.RecordBatch]
Arrange = Callable[[pa.Table], pa.Table]


def new_id(randomness: Randomness) -> str:
    """Return 32 hexadecimal digits that nobody has drawn before."""
    return base64.urlsafe_b64decode(f"{randomness.token_urlsafe(16)}==").hex()


class SegmentWrite:
    """Writes one segment; implements `contracts.TableWrite`.

    A write with an id of its own has that id's file, whose name nobody can take twice: that is what makes a repeated
    write store nothing more, also when both run at once, in two processes.

    Args:
        folder: The table's folder.
        schema: The columns of the stored rows.
        convert: Makes rows as they were sent into rows that are stored.
        arrange: Puts the rows of one row group in order.
        write_id: The write's id, when it has one.
        randomness: Draws names.
    """

    def __init__(  # noqa: PLR0913 - options by keyword, each a part that differs between tables
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        convert: Convert,
        arrange: Arrange,
        write_id: str | None,
        randomness: Randomness,
    ) -> None:
        drawn = new_id(randomness)
        if write_id is not None and not is_writer_id(write_id):
            raise InternalError("A write's id is not made of at most 64 letters and digits.")
        self._folder = folder
        self._convert = convert
        self._has_id = write_id is not None
        self._segment = Segment(write_id or drawn, 0, 0)
        self._file = StreamedFile(folder, schema, owner_id=drawn, arrange=arrange)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows.

        Raises:
            UsageError: A value does not fit its column.
            ResourcesExhausted: There is no room for them.
            Unavailable: They cannot be written.
        """
        self._file.write(self._convert(batch))

    def commit(self) -> int:
        """Make the rows durable and visible, unless a write with this id did so before; return how many.

        Raises:
            UsageError: The id was used for other rows.
            ResourcesExhausted: There is no room for them; none is stored.
            Unavailable: They cannot be stored now; none is stored.
        """
        row_count = self._file.row_count
        if row_count == 0 or self._was_dropped():
            self._file.discard()
        elif not self._file.publish(self._segment.file_name, is_only_once=self._has_id):
            with write_errors():
                stored = pq.read_metadata(self._folder / self._segment.file_name).num_rows
            if stored != row_count:
                raise UsageError(
                    f"{stored:,} rows were stored under this id before, and these are {row_count:,}.",
                    remedy="Use a new id for each call, and the same one only to repeat it.",
                )
        return row_count

    def move_to(self, folder: Path) -> None:
        """Put rows that were committed into another table's folder, unless a write with this id did so before.

        Raises:
            OSError: They could not be moved.
        """
        if self._file.row_count:
            make_private_folder(folder)
            name = self._segment.file_name
            name_once(self._folder / name, folder / name)

    def abandon(self) -> None:
        """Forget the rows; does nothing after a `commit`."""
        self._file.discard()

    def _was_dropped(self) -> bool:
        """Whether rows of this id were stored and have outlived the table's limits since."""
        tombstone = self._segment._replace(is_tombstone=True)
        return self._has_id and (self._folder / tombstone.file_name).exists()
