"""In lakes that differ only in deleted rows, statements return the same rows or the same kind of error."""

import re
from contextlib import ExitStack
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import DeletionVector
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.delta_tables import encode_rows, z85
from tests.unit.engine import hidden_worlds
from tests.unit.engine.conftest import asking
from tests.unit.engine.hidden_worlds import CONDITIONS, statements, write_world

_HIDDEN_VALUE = re.compile(r"secret|no number|zzz|2024-13-45|999999999999|hidden")


def with_vectors(tables):
    """Return tables without their hidden rows, which are deleted."""
    found = []
    for table in tables:
        files, places, counts = [], [], []
        for place, file in enumerate(table.files):
            names = pq.read_table(file.path, columns=["exe"]).column("exe").to_pylist()
            rows = [number for number, name in enumerate(names) if name == "hidden"]
            if len(rows) == len(names):
                continue  # as a snapshot leaves it out
            content = encode_rows(rows)
            text = z85(content + b"\0" * (-len(content) % 4))
            files.append(file._replace(deleted=DeletionVector(text, None, len(content), len(rows), len(names))))
            places.append(place)
            counts.append(len(names) - len(rows))
        bounds = table.bounds.take(places)
        bounds = bounds.set_column(bounds.column_names.index("rows"), "rows", pa.array(counts))
        found.append(replace(table, files=tuple(files), bounds=bounds))
    return found


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """One lake that never had the deleted rows, and two with other ones."""
    make = hidden_worlds._hidden
    with ExitStack() as stack:
        lakes = [write_world(0, tmp_path_factory.mktemp("plain"))]
        for shift in (0, 1000):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(hidden_worlds, "_hidden", lambda number, shift=shift: make(number + shift))
                lakes.append(with_vectors(write_world(1, tmp_path_factory.mktemp("deleted"))))
        yield [stack.enter_context(asking(tables, target_partitions=2)) for tables in lakes]


def outcome(ask, sql):
    try:
        return [str(row) for row in ask.rows(sql)]
    except MicromegasError as error:
        shows_value = "hidden" not in sql and _HIDDEN_VALUE.search(error.what.replace("9" * 20, "")) is not None
        return type(error), shows_value


@pytest.mark.parametrize("is_filtered", [False, True], ids=["all rows", "row filter"])
def test_statements_that_may_fail_tell_nothing_of_deleted_rows(worlds, pytestconfig, is_filtered):
    different, failed, count = [], 0, 5000 if pytestconfig.getoption("--long") else 30
    for number, sql in enumerate(statements(seed=60, count=count)):
        filters = {"logs": (CONDITIONS[number % len(CONDITIONS)],), "other": ("exe = 'x'",)}
        plain, first, second = (outcome(ask.seeing(filters) if is_filtered else ask, sql) for ask in worlds)
        failed += isinstance(first, tuple)
        are_rows = isinstance(plain, list) and isinstance(first, list)
        if first != second or (are_rows and plain != first) or (isinstance(first, tuple) and first[1]):
            different.append((sql[:300], str([plain, first, second])[:600]))

    assert different == []
    assert count / 10 < failed < count * 9 / 10
