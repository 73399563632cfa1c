"""Takes rows that callers send, whole writes at a time, into the tables of a lake; implements `contracts.TableSink`.

Several processes may write into one lake at once. Who may write, and how much, is the server's decision.
"""

from functools import partial
from typing import Final

import pyarrow as pa

from micromegas_jupyter.contracts import TableWrite, WriteMode, WriteRequest
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lakehouse.limits import LakeSetup
from micromegas_jupyter.lakehouse.segment_write import SegmentWrite
from micromegas_jupyter.lakehouse.segment_writer import sort_rows
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS, Randomness
from micromegas_jupyter.telemetry.conversion import check_columns, convert_rows

_MAX_NAME_LENGTH: Final = 80


class LakeSink:
    """Writes into the lake's tables; safe to use from several threads.

    Args:
        setup: The lake.
        randomness: Draws names of files.
    """

    def __init__(self, setup: LakeSetup, *, randomness: Randomness = SYSTEM_RANDOMNESS) -> None:
        self._setup = setup
        self._randomness = randomness
        self._definitions = {definition.name: definition for definition in setup.tables}

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write.

        Raises:
            UsageError: There is no such table, there is one already, or the columns do not fit it.
        """
        definition = self._definitions.get(request.table)
        if definition is None:
            raise _no_such_table(request.table)
        if request.mode is WriteMode.CREATE:
            raise _exists_already(request.table)
        check_columns(schema, definition)
        return SegmentWrite(
            self._setup.folder(definition),
            definition.schema,
            convert=partial(convert_rows, definition=definition),
            arrange=partial(sort_rows, definition=definition),
            write_id=request.write_id,
            randomness=self._randomness,
        )


def _no_such_table(name: str) -> UsageError:
    return UsageError(
        f"There is no table {name[:_MAX_NAME_LENGTH]!r} to add rows to.",
        remedy="Name a table that is there, or create it in the same call.",
    )


def _exists_already(name: str) -> UsageError:
    return UsageError(
        f"There is a table {name} already.", remedy='Append to it (mode "append"), or choose another name.'
    )
