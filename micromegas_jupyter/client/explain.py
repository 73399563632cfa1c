"""A statement's execution plan on the server, formatted for users."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import QueryError

#: On a separate line, so that a position in the statement keeps its column.
EXPLAIN: Final = "EXPLAIN\n"


@contextmanager
def positions_without_explain() -> Iterator[None]:
    """Make error positions of a statement after `EXPLAIN` refer to the statement itself."""
    try:
        yield
    except QueryError as error:
        if error.line is not None:
            error.line = max(error.line - 1, 1)
        if error.correction is not None:
            error.correction = error.correction._replace(line=max(error.correction.line - 1, 1))
        raise


def read_plan(reader: QueryReader) -> str:
    """Return the plan from an EXPLAIN, with the scan estimate if the server provides one."""
    plans = []
    # DataFusion's two columns, one below the other; other servers' responses are treated the same way.
    for row in reader.read_all().to_pylist():
        title, *lines = "\n".join(str(cell).rstrip() for cell in row.values() if cell is not None).split("\n")
        plans.append("\n".join([title.replace("_", " "), *(f"  {line}" for line in lines)]))
    if reader.counts is not None and reader.counts.explained:
        tables = [f"  {printable(table.name)}: {table.text()}" for table in reader.counts.explained]
        plans.append("\n".join(["files to read", *tables]))
    return "\n\n".join(plans)
